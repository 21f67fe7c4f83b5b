// Runs autocannon on the parent's requests, in a process of its own. The warm-up comes first, then the measured
// window. Every latency is kept, because autocannon's own histogram has whole milliseconds only.
import autocannon from 'autocannon'

process.once('disconnect', () => process.exit())

process.on('message', ({ url, connections, warmup, seconds, requests }) => {
  const statuses = {}
  const latencies = []
  const others = []
  // Clients whose next answer belongs to a slow request.
  const slow = new Set()
  let counting = false
  let failed

  // Each connection sends its own share of the requests.
  let share = 0
  const size = Math.ceil(requests.length / connections)
  const tracker = autocannon({
    url,
    connections,
    // It is stopped below. A short interval makes that quick.
    duration: 86_400,
    sampleInt: 100,
    setupClient(client) {
      const own = requests.slice(share++ * size, share * size)
      client.setRequests(
        own.map((request) => (request.slow ? { ...request, onResponse: () => slow.add(client) } : request))
      )
    }
  })
  tracker.on('response', (client, status, _bytes, milliseconds) => {
    statuses[status] = (statuses[status] ?? 0) + 1
    const isSlow = slow.delete(client)
    if (!counting) return
    latencies.push(milliseconds)
    if (!isSlow) others.push(milliseconds)
  })
  tracker.on('reqError', (error) => {
    failed ??= error.message
  })

  setTimeout(() => {
    counting = true
    const started = performance.now()
    process.send({ event: 'started' })
    setTimeout(() => {
      counting = false
      const elapsed = (performance.now() - started) / 1000
      process.send({ event: 'ended' })
      tracker.stop()
      tracker.then(() => process.send({ event: 'result', ...result(elapsed) }))
    }, seconds * 1000)
  }, warmup * 1000)

  function result(elapsed) {
    return {
      count: latencies.length,
      rate: latencies.length / elapsed,
      p50: percentile(latencies, 0.5),
      p99: percentile(latencies, 0.99),
      ...(others.length < latencies.length && {
        othersP50: percentile(others, 0.5),
        othersP99: percentile(others, 0.99)
      }),
      statuses,
      ...(failed && { failed })
    }
  }
})

function percentile(latencies, share) {
  const sorted = Float64Array.from(latencies).sort()
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
}
