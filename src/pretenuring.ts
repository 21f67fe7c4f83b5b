import { setFlagsFromString } from 'node:v8'

/**
 * Makes V8 allocate all further objects among the young ones, unless a function is assigned to a property.
 *
 * V8 counts how many objects of each literal survive, and allocates the next ones among the old objects if most do. It
 * decides by as few as 100 objects. In some starts it chose literals of which each request makes one. Then everything that
 * belongs to a request survived until the next full garbage collection, and a request took a third more CPU time.
 *
 * Call it after the start: from then on Node does not use its code cache.
 */
export function disablePretenuring(): void {
  setFlagsFromString('--no-allocation-site-pretenuring')
}
