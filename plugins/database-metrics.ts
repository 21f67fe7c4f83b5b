import fp from 'fastify-plugin'
import { Counter, Gauge, Histogram } from 'prom-client'
import { CLOSING_REASONS, type ClosingReason } from '../db/observations.js'
import { countsOf } from './metrics.js'

/** Log messages for connections that fail. */
const FAILURES: Partial<Record<ClosingReason, string>> = {
  lost: 'a connection to the database was lost',
  unresponsive: 'a connection to the database was closed, because nothing arrived on it',
  read_only: 'a connection to the database was closed, because the server takes no writes'
}

/** Metrics of statements and connections, and a log line for each connection that is lost. */
export default fp(
  async (app) => {
    const { metrics, db } = app
    const { observed } = db
    const registers = [metrics]

    const gaugeByState = (name: string, help: string, counts: () => Record<string, number>) =>
      new Gauge({
        name,
        help,
        labelNames: ['state'],
        registers,
        collect() {
          for (const [state, count] of Object.entries(counts())) this.set({ state }, count)
        }
      })
    gaugeByState(
      'database_connections',
      'Connections to the database by their state: idle, busy or opening.',
      () => db.figures().connections
    )
    gaugeByState(
      'database_statements',
      'Statements without an answer: waiting for a connection, or sent.',
      () => {
        const { waiting, sent } = db.figures()
        return { waiting, sent }
      }
    )
    new Gauge({
      name: 'database_connections_max',
      help: 'The most connections to the database that requests may use.',
      registers,
      collect() {
        this.set(db.figures().maxConnections)
      }
    })

    const wait = new Histogram({
      name: 'database_statement_wait_seconds',
      help: 'How long statements waited for a connection before they were sent, in seconds.',
      buckets: [0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2],
      registers
    })
    observed.on('sent', (waitedMs) => wait.observe(waitedMs / 1000))

    const timeouts = countsOf(metrics, {
      name: 'database_statement_timeouts_total',
      help: 'Statements that passed their deadline while they waited for a connection, or after they were sent.',
      label: 'state',
      values: ['waiting', 'sent']
    })
    observed.on('timedOut', (state) => timeouts[state]++)
    const cancellations = countsOf(metrics, {
      name: 'database_statement_cancellations_total',
      help: 'Cancel requests that were sent for a statement past its deadline, or one that held up others.',
      label: 'reason',
      values: ['timeout', 'lock']
    })
    observed.on('cancelled', (reason) => cancellations[reason]++)

    const shared = new Histogram({
      name: 'database_shared_transaction_writes',
      help: 'How many writes of different requests shared a transaction.',
      buckets: [1, 2, 4, 8, 16, 32],
      registers
    })
    const outcomes = countsOf(metrics, {
      name: 'database_shared_transactions_total',
      help: 'Shared transactions by their outcome. The writes of one that was rolled back are tried again alone.',
      label: 'outcome',
      values: ['committed', 'rolled back', 'unknown']
    })
    observed.on('shared', (writes, outcome) => {
      shared.observe(writes)
      outcomes[outcome]++
    })

    const opened = new Counter({
      name: 'database_connections_opened_total',
      help: 'Connections to the database that were made.',
      registers
    })
    // Connections that were opened before these listeners were added.
    const { idle, busy } = db.figures().connections
    opened.inc(idle + busy)
    observed.on('opened', () => opened.inc())
    const failures = new Counter({
      name: 'database_connection_failures_total',
      help: 'Attempts to connect to the database that failed.',
      registers
    })
    observed.on('openFailed', () => failures.inc())
    const closed = countsOf(metrics, {
      name: 'database_connections_closed_total',
      help: 'Connections to the database that were closed, by the reason.',
      label: 'reason',
      values: CLOSING_REASONS
    })
    observed.on('closed', (reason) => {
      closed[reason]++
      const message = FAILURES[reason]
      if (message !== undefined) app.log.warn({ reason }, message)
    })
  },
  { name: 'database-metrics', dependencies: ['metrics', 'database'] }
)
