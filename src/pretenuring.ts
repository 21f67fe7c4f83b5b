import { setFlagsFromString } from 'node:v8'

/**
 * From now on V8 does not choose literals whose objects it allocates among the old ones.
 *
 * It chooses a literal if most of its first objects survive, by as few as 100 of them. In some starts it chose literals of
 * which each request makes one. Then everything that belongs to a request survived until the next full garbage collection,
 * and a request took a third more CPU time.
 *
 * Call it after the start: from then on Node does not use its code cache.
 */
export function disablePretenuring(): void {
  setFlagsFromString('--no-allocation-site-pretenuring')
}
