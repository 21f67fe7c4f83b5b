interface Waiter {
  user: string
  begin: () => void
}

/** Limits what is done at the same time: by all users together, and by each of them. */
export class Turns {
  readonly #max: number
  readonly #maxOfOne: number
  /** The number of turns by user, without the users who have none. */
  readonly #taken = new Map<string, number>()
  #total = 0
  readonly #waiting: Waiter[] = []

  /**
   * @param max number of turns at the same time, at least 1
   * @param maxOfOne number of one user's turns at the same time, at least 1
   */
  constructor(max: number, maxOfOne: number) {
    this.#max = max
    this.#maxOfOne = maxOfOne
  }

  /** The number of turns that are waited for. */
  get waiting(): number {
    return this.#waiting.length
  }

  waitingOf(user: string): number {
    return this.#waiting.filter((waiter) => waiter.user === user).length
  }

  /**
   * Calls `begin` when it is this user's turn, at once if possible.
   *
   * @returns a function that ends the wait. After `begin` it does nothing
   */
  take(user: string, begin: () => void): () => void {
    const waiter = { user, begin }
    if (this.#isFree(user)) this.#begin(waiter)
    else this.#waiting.push(waiter)
    return () => {
      const at = this.#waiting.indexOf(waiter)
      if (at >= 0) this.#waiting.splice(at, 1)
    }
  }

  /** Ends a turn of this user. The next begins: the first that waits, and whose user has not taken the most. */
  end(user: string): void {
    const left = this.#turnsOf(user) - 1
    if (left > 0) this.#taken.set(user, left)
    else this.#taken.delete(user)
    this.#total--
    const next = this.#waiting.findIndex((waiter) => this.#isFree(waiter.user))
    for (const waiter of next < 0 ? [] : this.#waiting.splice(next, 1)) this.#begin(waiter)
  }

  #begin({ user, begin }: Waiter): void {
    this.#taken.set(user, this.#turnsOf(user) + 1)
    this.#total++
    begin()
  }

  #isFree(user: string): boolean {
    return this.#total < this.#max && this.#turnsOf(user) < this.#maxOfOne
  }

  #turnsOf(user: string): number {
    return this.#taken.get(user) ?? 0
  }
}
