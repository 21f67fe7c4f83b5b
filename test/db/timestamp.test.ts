import { toTimestamp } from '../../db/timestamp.js'
import t from '../support/tap.js'

t.test('a timestamp of PostgreSQL becomes RFC 3339 with milliseconds', async (t) => {
  const cases: [text: string, timestamp: string][] = [
    ['2026-11-21 08:00:00+00', '2026-11-21T08:00:00.000Z'],
    ['2026-11-21 08:00:00.1+00', '2026-11-21T08:00:00.100Z'],
    ['2026-11-21 08:00:00.12+00', '2026-11-21T08:00:00.120Z'],
    ['2026-11-21 08:00:00.123+00', '2026-11-21T08:00:00.123Z'],
    ['2026-11-21 08:00:00.003+00', '2026-11-21T08:00:00.003Z'],
    // A pooler may hand out sessions in another time zone.
    ['2026-11-21 13:30:00.12+05:30', '2026-11-21T08:00:00.120Z'],
    ['2026-11-21 04:00:00-04', '2026-11-21T08:00:00.000Z'],
    ['2026-01-01 00:30:00.5+01', '2025-12-31T23:30:00.500Z'],
    // Values that RFC 3339 lacks, and other styles of dates.
    ...[
      'infinity',
      '-infinity',
      '0044-03-15 00:00:00+00 BC',
      '12026-01-01 00:00:00+00',
      '12026-01-01 00:00:00+02',
      '1883-11-18 12:03:58-07:52:58',
      '05/11/2026 08:00:00.12 UTC',
      'Sat Nov 21 08:00:00.12 2026 UTC'
    ].map((text): [string, string] => [text, text])
  ]
  for (const [text, timestamp] of cases) t.equal(toTimestamp(text), timestamp, text)
})
