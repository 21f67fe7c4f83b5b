// Both come from the environment, so that one line runs a failed sequence again. The short form that `npm test` runs has
// a fixed seed: what turns it red is a change of the code. `npm run test:fuzz` takes a new seed each time.
const { FUZZ_REQUESTS = '1500', FUZZ_SEED = '1' } = process.env

/** How many requests are made from the OpenAPI document; other sequences have a fixed share of it. */
export const REQUESTS = Number(FUZZ_REQUESTS)

/** From it follows everything that is sent: a 32-bit number. */
export const SEED = FUZZ_SEED === 'new' ? Math.trunc(Math.random() * 2 ** 31) : Number(FUZZ_SEED)

/** The line that runs the same sequence again. */
export const AGAIN = `FUZZ_SEED=${SEED} FUZZ_REQUESTS=${REQUESTS} npm run test:fuzz`

if (!Number.isInteger(REQUESTS) || !Number.isInteger(SEED)) {
  throw new RangeError('FUZZ_REQUESTS and FUZZ_SEED must be whole numbers')
}
