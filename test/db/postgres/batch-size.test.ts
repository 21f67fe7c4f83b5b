import { batchSize, MAX_BATCH_SIZE, maxBatches } from '../../../db/postgres/batch-size.js'
import t from '../../support/tap.js'

t.test('batches are larger if commits are slow, and smaller if writes are slow', async (t) => {
  t.equal(batchSize(0, 0), MAX_BATCH_SIZE, 'an instant database')
  t.equal(batchSize(0.05, 1), 21)
  t.equal(batchSize(0.05, 5), MAX_BATCH_SIZE, 'a synchronous standby')
  t.equal(batchSize(1, 3), 4)
  t.equal(batchSize(1, 2.9), 1, 'fewer than 4 cost more than they save')
  t.equal(batchSize(5, 1), 1)
  t.equal(batchSize(20, 30), 1)
})

t.test('few large batches or many small ones run at the same time', async (t) => {
  t.equal(maxBatches(32, 1, 0, 10), 3)
  t.equal(maxBatches(2, 1, 0, 10), 10)
  t.ok(maxBatches(32, 1, 20, 10) >= 30, 'the network takes most of the time')
})
