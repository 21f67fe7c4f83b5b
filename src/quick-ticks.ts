import { executionAsyncResource } from 'node:async_hooks'

const kept: object[] = []

/**
 * Keeps `process.nextTick` fast, which runs several times for each request.
 *
 * Node makes an object for each call. If a garbage collection finds no such object, V8 also frees their hidden class. From
 * then on each call takes six times as long, until the process ends. So this keeps one object.
 */
export function keepTicksFast(): void {
  process.nextTick(() => kept.push(executionAsyncResource()))
}
