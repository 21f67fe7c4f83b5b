import sonicBoom from 'sonic-boom'

/** Lines that wait for the output, in bytes. Further lines are dropped. */
const WAITING_BYTES = 1_000_000

/** An output takes lines in much less. After this time, in milliseconds, nobody reads it. */
const STUCK_MS = 1_000

/** An attempt to write failed, or a line was dropped. */
export const LOG_FAILURES = ['write', 'drop'] as const

export interface LogOutput {
  /** Returns at once, and never throws. */
  write(line: string): void
  /** Sets the function that is called at each failure. */
  onFailure(listener: (kind: (typeof LOG_FAILURES)[number]) => void): void
  /** Resolves when all lines are written, when the output fails, or after a second. */
  written(): Promise<void>
}

/**
 * Writes log lines to this file descriptor. The service goes on if that fails: on a full disk, or if the reader has ended or
 * no longer reads. A line that cannot be written is kept, and tried again with the next line.
 *
 * pino's own output ends the process or hangs it in each of these cases. For one thing, pino calls `flushSync`, which is
 * missing here.
 */
export function logOutput(fd: number): LogOutput {
  const output = new sonicBoom.SonicBoom({ fd, maxLength: WAITING_BYTES })
  /** When the write began that has no result yet. */
  let startedAt: number | undefined
  let failed: Parameters<LogOutput['onFailure']>[0] = () => {}
  let ended = () => {}
  const end = () => {
    startedAt = undefined
    ended()
  }
  output.on('write', () => {
    startedAt = performance.now()
  })
  output.on('drain', end)
  output.on('error', () => {
    end()
    failed('write')
  })
  output.on('drop', () => {
    failed('drop')
    // A line that is dropped does not repeat a failed write.
    output.flush()
  })
  process.on('exit', () => {
    // Node would wait for the write without an end.
    if (startedAt !== undefined && performance.now() - startedAt >= STUCK_MS)
      process.kill(process.pid, 'SIGKILL')
  })
  return {
    write(line) {
      startedAt ??= performance.now()
      output.write(line)
    },
    onFailure(listener) {
      failed = listener
    },
    async written() {
      if (startedAt === undefined) return
      await new Promise<void>((resolve) => {
        ended = resolve
        setTimeout(resolve, STUCK_MS)
      })
    }
  }
}
