// Both come from the environment, so that one command runs a failed sequence again. `npm test` and `npm run test:long`
// have a fixed seed, so only a change of the code makes them fail. `npm run test:fuzz` takes a new seed each time.
const { FUZZ_REQUESTS = '300', FUZZ_SEED = '1' } = process.env

/** Number of requests made from the OpenAPI document. A fifth as many have broken framing. */
export const REQUESTS = Number(FUZZ_REQUESTS)

/** A 32-bit number that determines every request. */
export const SEED = Number(FUZZ_SEED)

if (!Number.isInteger(REQUESTS) || !Number.isInteger(SEED)) {
  throw new RangeError('FUZZ_REQUESTS and FUZZ_SEED must be whole numbers')
}

/** The command that runs the same sequence again. */
export const AGAIN = `FUZZ_SEED=${SEED} FUZZ_REQUESTS=${REQUESTS} npm run test:fuzz`
