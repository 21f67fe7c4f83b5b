import type { FastifyInstance } from 'fastify'

/** The current samples of `/metrics`, by name and labels: `up{job="a",x="b"}`. */
export async function scrape(app: FastifyInstance): Promise<Map<string, number>> {
  const lines = (await app.metrics.metrics()).split('\n').filter((line) => line && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const end = line.lastIndexOf(' ')
      return [line.slice(0, end), Number(line.slice(end + 1))]
    })
  )
}
