// The load, in a process of its own: autocannon on the requests that the parent sends, first for the warm-up, then for
// the window that counts. Every latency is kept, because autocannon's own histogram knows whole milliseconds only.
import autocannon from 'autocannon'

process.once('disconnect', () => process.exit())

process.once('message', ({ url, connections, warmup, seconds, requests }) => {
  const statuses = {}
  const latencies = []
  let counting = false
  let failed

  // Each connection goes its own way through its own share of the requests.
  let share = 0
  const size = Math.ceil(requests.length / connections)
  const tracker = autocannon({
    url,
    connections,
    // Ended below, and looked at in short intervals so that the end is soon.
    duration: 86_400,
    sampleInt: 100,
    setupClient: (client) => client.setRequests(requests.slice(share++ * size, share * size))
  })
  tracker.on('response', (_client, status, _bytes, milliseconds) => {
    statuses[status] = (statuses[status] ?? 0) + 1
    if (counting) latencies.push(milliseconds)
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
      tracker.then(() => process.send({ event: 'result', ...result(elapsed) }, () => process.disconnect()))
    }, seconds * 1000)
  }, warmup * 1000)

  function result(elapsed) {
    const sorted = Float64Array.from(latencies).sort()
    const percentile = (p) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]
    return {
      count: sorted.length,
      seconds: elapsed,
      p50: percentile(0.5),
      p99: percentile(0.99),
      statuses,
      ...(failed && { failed })
    }
  }
})
