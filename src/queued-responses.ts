import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * Ends each queued response when its connection closes. A response is queued while earlier requests of its connection are not
 * answered: the client did not wait for their answers (pipelining).
 *
 * Node 24 does this by itself. Node 20 does it only for the response that it is sending. So whatever waits for the end of a
 * queued one would wait for ever, and a stream would stay open.
 *
 * @returns a function that returns true if later requests of the connection wait behind this response
 */
export function closeQueuedResponses(server: Server): (response: ServerResponse) => boolean {
  const queues = new WeakMap<Socket, Set<ServerResponse>>()
  server.on('request', ({ socket }, response) => {
    // Only a queued response has no socket yet.
    if (response.socket !== null) return
    const queue = queues.get(socket) ?? newQueue(socket)
    queue.add(response)
    response.once('close', () => queue.delete(response))
  })

  return (response) => {
    const queue = queues.get(response.req.socket)
    // A response stays in the queue until it is closed, and the latest is the last.
    const latest = queue && [...queue].at(-1)
    return latest !== undefined && latest !== response && !latest.writableFinished
  }

  function newQueue(socket: Socket): Set<ServerResponse> {
    const queue = new Set<ServerResponse>()
    queues.set(socket, queue)
    socket.once('close', () => {
      for (const response of queue) {
        // If it has a socket by now, Node ends it.
        if (response.socket !== null) continue
        response.destroy()
        // Node 24 emits the event in this tick. `_closed` also tells it to those who look later, for instance stream.pipeline.
        process.nextTick(() => {
          if (response.closed) return
          Object.assign(response, { _closed: true })
          response.emit('close')
        })
      }
    })
    return queue
  }
}
