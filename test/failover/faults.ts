import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster, Node, Times } from './cluster.js'

export const FAULTS = [
  'primary killed',
  'switchover',
  'primary cut off',
  'primary cut off from all but the service',
  'synchronous standby killed',
  'standbys cut off'
] as const

export type FaultKind = (typeof FAULTS)[number]

/** True if there is another primary afterwards. */
export const movesPrimary = (kind: FaultKind) => !kind.includes('standby')

/** Longer than Patroni's detection of a failure. */
const cutMs = ({ ttl, loop_wait }: Times) => (ttl + loop_wait + 4) * 1_000
/** Longer than the deadline of a statement, so that writes are answered while they wait for their standby. */
const STANDBYS_AWAY_MS = 6_000

/** Starts the fault. Returns a function that ends it, so that the node can come back. */
export async function inject(cluster: Cluster, kind: FaultKind, primary: Node): Promise<() => Promise<void>> {
  const { etcd, replication, rest, clients } = primary
  switch (kind) {
    case 'primary killed':
      await primary.kill()
      return async () => primary.start()
    case 'switchover': {
      const to = await standby(cluster, 'sync_standby')
      await cluster.switchover(primary, to)
      return async () => {}
    }
    case 'primary cut off':
      return cut([etcd, replication, rest, clients], cutMs(cluster.times))
    case 'primary cut off from all but the service':
      return cut([etcd, replication, rest], cutMs(cluster.times))
    case 'synchronous standby killed': {
      const node = await standby(cluster, 'sync_standby')
      await node.kill()
      return async () => node.start()
    }
    case 'standbys cut off':
      return cut([replication], STANDBYS_AWAY_MS)
  }
}

async function standby(cluster: Cluster, role: string): Promise<Node> {
  const member = (await cluster.members()).find((one) => one.role === role)
  const node = cluster.nodes.find(({ name }) => name === member?.name)
  if (node === undefined) throw new Error(`there is no ${role}`)
  return node
}

/** Blocks all traffic in both directions, without closing connections. Afterwards it arrives, as TCP sends it again. */
async function cut(ways: Node['etcd'][], milliseconds: number): Promise<() => Promise<void>> {
  for (const way of ways) {
    way.mode = 'frozen'
    way.freeze()
  }
  const over = sleep(milliseconds)
  return async () => {
    await over
    for (const way of ways) {
      way.mode = 'pass'
      way.thaw()
    }
  }
}
