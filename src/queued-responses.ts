import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * Emits 'close' for each queued response when its connection closes. A response is queued while earlier requests of its
 * connection are not answered: the client did not wait for their answers (pipelining).
 *
 * Node emits 'close' only for the response that it is sending. So whatever waits for the end of a queued one would wait for
 * ever, or keep a stream open.
 */
export function closeQueuedResponses(server: Server): void {
  const queues = new WeakMap<Socket, Set<ServerResponse>>()
  server.on('request', ({ socket }, response) => {
    // Only a queued response has no socket yet.
    if (response.socket !== null) return
    const queue = queues.get(socket) ?? newQueue(socket)
    queue.add(response)
    response.once('close', () => queue.delete(response))
  })

  function newQueue(socket: Socket): Set<ServerResponse> {
    const queue = new Set<ServerResponse>()
    queues.set(socket, queue)
    socket.once('close', () => {
      for (const response of queue) {
        // If it has a socket by now, Node emits the event.
        if (response.socket !== null) continue
        response.destroy()
        response.emit('close')
      }
    })
    return queue
  }
}
