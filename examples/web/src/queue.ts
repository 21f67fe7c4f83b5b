import { Unavailable } from './api'

/** The reason why requests wait. */
export type Outage = 'unreachable' | 'busy'

const MAX_PAUSE_MS = 8_000

/**
 * Runs requests one at a time, in the order of the user's changes. It repeats a request until there is an answer, so
 * each must be safe to repeat.
 */
export class RequestQueue {
  #last: Promise<unknown> = Promise.resolve()
  #ended = false
  #wake = () => {}
  readonly #onOutage: (outage: Outage | undefined) => void

  /** @param onOutage called when requests begin to wait, and when they no longer do */
  constructor(onOutage: (outage: Outage | undefined) => void) {
    this.#onOutage = onOutage
  }

  run<T>(request: () => Promise<T>): Promise<T> {
    const result = this.#last.then(() => this.#untilAnswered(request))
    this.#last = result.catch(() => {})
    return result
  }

  /** Ends the pause before the next attempt. */
  retryNow(): void {
    this.#wake()
  }

  /** Sends no more requests. */
  end(): void {
    this.#ended = true
    this.#wake()
  }

  async #untilAnswered<T>(request: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      // Never settles: its caller is gone.
      if (this.#ended) return new Promise(() => {})
      try {
        const answer = await request()
        this.#onOutage(undefined)
        return answer
      } catch (error) {
        if (!(error instanceof Unavailable)) {
          this.#onOutage(undefined)
          throw error
        }
        this.#onOutage(error.answered ? 'busy' : 'unreachable')
        await this.#pause(error.retryAfterMs ?? Math.min(500 * 2 ** attempt, MAX_PAUSE_MS))
      }
    }
  }

  async #pause(milliseconds: number): Promise<void> {
    let timer: number | undefined
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      timer = window.setTimeout(resolve, milliseconds)
    })
    clearTimeout(timer)
  }
}
