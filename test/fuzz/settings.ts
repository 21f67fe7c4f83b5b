// Both come from the environment, so that one line runs a failed sequence again. The forms of `npm test` and
// `npm run test:long` have a fixed seed: what turns them red is a change of the code. `npm run test:fuzz` takes a new
// seed each time.
const { FUZZ_REQUESTS = '300', FUZZ_SEED = '1' } = process.env

/** How many requests are made from the OpenAPI document; there are a fifth as many with broken framing. */
export const REQUESTS = Number(FUZZ_REQUESTS)

/** A 32-bit number, from which everything follows that is sent. */
export const SEED = Number(FUZZ_SEED)

if (!Number.isInteger(REQUESTS) || !Number.isInteger(SEED)) {
  throw new RangeError('FUZZ_REQUESTS and FUZZ_SEED must be whole numbers')
}

/** The line that runs the same sequence again. */
export const AGAIN = `FUZZ_SEED=${SEED} FUZZ_REQUESTS=${REQUESTS} npm run test:fuzz`
