import { DatabaseUnavailable, StartError } from '../db/errors.js'
import { causeOf } from '../db/sqlstate.js'
import { loadDotEnv } from '../src/dot-env.js'
import { limitLookups } from '../src/lookups.js'

/** Runs an operator's command. A failure that is not a bug prints one line and exits with code 1. */
export async function runCommand(command: () => Promise<void>): Promise<void> {
  try {
    loadDotEnv(process.env)
    limitLookups()
    await command()
  } catch (error) {
    console.error(lineOf(error))
    // process.exitCode would not do: the driver may still be trying to connect.
    process.exit(1)
  }
}

/** @throws the error when it is a bug */
function lineOf(error: unknown): string {
  if (error instanceof StartError) return error.message
  const { message, code } = causeOf(error) as Error & { code?: string }
  if (error instanceof DatabaseUnavailable) {
    return message === error.message
      ? `${message}: it does not answer in time`
      : `${error.message}: ${message}`
  }
  if (code === undefined) throw error
  return message
}
