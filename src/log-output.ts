import sonicBoom from 'sonic-boom'

/** Lines that wait for the output, in bytes. Further lines are dropped. */
const WAITING_BYTES = 1_000_000

/** Time after which a full output is tried again, in milliseconds. */
const FULL_MS = 5

/** Time that a write gets when the process exits, in milliseconds. */
const LAST_WRITE_MS = 20

/** An output that takes nothing for this time, in milliseconds, is not read any more. */
const STUCK_MS = 1_000

/** An attempt to write failed, or a line was dropped. */
export const LOG_FAILURES = ['write', 'drop'] as const

export interface LogOutput {
  /** Returns at once, and never throws. */
  write(line: string): void
  /** Sets the function that is called at each failure. */
  onFailure(listener: (kind: (typeof LOG_FAILURES)[number]) => void): void
  /** Resolves when all lines are written, when the output fails, or when it has taken nothing for a second. */
  written(): Promise<void>
}

/**
 * Writes log lines to this file descriptor. The service goes on if that fails: on a full disk, or if the reader has ended or
 * no longer reads. A line that cannot be written is kept, and tried again with the next line.
 *
 * pino's own output can end or hang the process then. For one thing, pino calls `flushSync`, which is missing here.
 *
 * @param fd Node makes a pipe or a socket non-blocking when `process.stdout` is used
 */
export function logOutput(fd: number): LogOutput {
  // sonic-boom itself would wait 100 ms for a full output, although a reader empties it in much less.
  const output = new sonicBoom.SonicBoom({ fd, maxLength: WAITING_BYTES, retryEAGAIN: () => false })
  let onFailure: Parameters<LogOutput['onFailure']>[0] = () => {}
  let isEmpty = true
  /** True if the last attempt failed, until the next one. */
  let hasFailed = false
  /** True if the output was full, until it is tried again. */
  let isFull = false
  /** When the write began that has no result yet. Only a blocking descriptor lets it hang. */
  let startedAt: number | undefined
  /** Number of writes that the output has taken. */
  let taken = 0
  let drops = 0
  let settled = () => {}

  const begun = () => {
    hasFailed = false
    startedAt ??= performance.now()
  }
  const tryAgain = () => {
    if (isEmpty) return
    begun()
    output.flush()
  }
  const retry = () => {
    isFull = false
    tryAgain()
  }
  output.on('write', () => {
    taken++
    startedAt = performance.now()
  })
  output.on('drain', () => {
    isEmpty = true
    startedAt = undefined
    settled()
  })
  output.on('error', ({ code }: NodeJS.ErrnoException) => {
    startedAt = undefined
    if (code === 'EAGAIN') {
      if (!isFull) setTimeout(retry, FULL_MS).unref()
      isFull = true
      return
    }
    hasFailed = true
    settled()
    onFailure('write')
  })
  output.on('drop', () => {
    drops++
    onFailure('drop')
    // A line that is dropped does not repeat a failed write.
    if (hasFailed) tryAgain()
  })
  process.on('exit', () => {
    if (startedAt !== undefined && performance.now() - startedAt >= STUCK_MS / 2) {
      // Node would wait for the write without an end. As process 1 of a container it still does: the kernel ignores this.
      process.kill(process.pid, 'SIGKILL')
    }
    if (isEmpty) return
    // Lines would overtake those of a write that is not over. It runs in another thread, and mostly takes much less.
    if (startedAt !== undefined) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LAST_WRITE_MS)
    try {
      output.flushSync()
    } catch {
      // The output is full or has failed. There is no time left to wait for it.
    }
  })

  return {
    write(line) {
      const before = drops
      output.write(line)
      if (drops > before) return
      isEmpty = false
      begun()
    },
    onFailure(listener) {
      onFailure = listener
    },
    async written() {
      tryAgain()
      for (let before = -1; !isEmpty && !hasFailed && before !== taken; ) {
        before = taken
        await new Promise<void>((resolve) => {
          settled = resolve
          // After a pause of the process, the result of a write may be there but not read yet.
          setTimeout(() => setImmediate(resolve), STUCK_MS)
        })
      }
    }
  }
}
