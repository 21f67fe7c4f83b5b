import type { Transport } from '../support/databases.js'
import { type Random, randomOf } from './random.js'

/** Minimum and maximum duration of each kind of fault, in milliseconds. Kinds with 0 have no duration. */
const DURATIONS = {
  'connections refused': [300, 3_000],
  'connections cut': [0, 0],
  'network silent': [500, 6_000],
  'network late': [500, 3_000],
  'connections closed at once': [300, 3_000],
  'PostgreSQL SIGQUIT': [0, 2_000],
  'PostgreSQL SIGKILL': [0, 2_000],
  'backends terminated': [0, 0],
  'table locked': [500, 6_000],
  'database read-only': [500, 4_000],
  'connection limit': [300, 3_000],
  'password changed': [300, 3_000],
  'TLS handshakes silent': [500, 4_000],
  'TLS handshakes cut': [300, 3_000],
  'certificate expired': [300, 3_000],
  'service SIGKILL': [0, 1_000],
  'service SIGTERM': [0, 1_000],
  'service paused': [300, 2_500]
} as const

export type FaultKind = keyof typeof DURATIONS

export const FAULT_KINDS = Object.keys(DURATIONS) as FaultKind[]

const OF_TLS: ReadonlySet<FaultKind> = new Set([
  'TLS handshakes silent',
  'TLS handshakes cut',
  'certificate expired'
])

/** The kinds that are possible with this connection to the database. */
export const faultKindsOver = (transport: Transport): FaultKind[] =>
  FAULT_KINDS.filter((kind) => transport === 'tls' || !OF_TLS.has(kind))

/** The kinds that affect one replica or its network. */
const OF_REPLICAS: ReadonlySet<FaultKind> = new Set([
  'connections refused',
  'connections cut',
  'network silent',
  'network late',
  'connections closed at once',
  'TLS handshakes silent',
  'TLS handshakes cut',
  'service SIGKILL',
  'service SIGTERM',
  'service paused'
])

export interface Fault {
  kind: FaultKind
  /** The affected replicas. */
  replicas: number[]
  /** The duration in milliseconds, without the time of a restart. */
  milliseconds: number
  /** The network's delay in milliseconds. Other kinds ignore it. */
  delay: number
  /** From the recovery to the next fault, in milliseconds. */
  pause: number
}

/**
 * An endless sequence of faults, the same for the same seed: rounds of these kinds, each in random order.
 *
 * @param longest limit for the duration of a fault, in milliseconds
 */
export function* schedule(
  seed: number,
  kinds: FaultKind[],
  replicas: number,
  longest: number
): Generator<Fault> {
  const random = randomOf(seed)
  for (;;) for (const kind of random.shuffled(kinds)) yield faultOf(kind, replicas, longest, random)
}

function faultOf(kind: FaultKind, replicas: number, longest: number, random: Random): Fault {
  const all = Array.from({ length: replicas }, (_, replica) => replica)
  const [from, to] = DURATIONS[kind]
  return {
    kind,
    replicas: OF_REPLICAS.has(kind) && random.chance(0.5) ? [random.pick(all)] : all,
    milliseconds: Math.round(random.between(Math.min(from, longest), Math.min(to, longest))),
    delay: Math.round(random.between(20, 500)),
    pause: Math.round(random.between(200, 1_000))
  }
}
