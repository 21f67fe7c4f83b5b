import { BadRequest } from './errors.js'

/** The strong entity tag of a version: RFC 9110, section 8.8.3. It comes from a count, so no clock can repeat it. */
export const entityTag = (version: number): string => `"${version}"`

interface Tag {
  weak: boolean
  opaque: string
}

/**
 * The versions that an `If-Match` names, or undefined when it names none in particular: the header is missing, or is
 * `*`. The comparison is strong, so weak tags name nothing: RFC 9110, section 13.1.1.
 *
 * @throws BadRequest (400) when the header is neither `*` nor a list of entity tags
 */
export function matchedVersions(ifMatch: string | undefined): number[] | undefined {
  if (ifMatch === undefined) return undefined
  const tags = parse('If-Match', ifMatch)
  if (tags === '*') return undefined
  // What is no version of ours, such as "x" or a number that PostgreSQL has no integer for, stands for no task.
  return tags
    .filter(({ weak, opaque }) => !weak && /^[1-9]\d{0,8}$/.test(opaque))
    .map(({ opaque }) => Number(opaque))
}

/**
 * Whether an `If-None-Match` names this version. The comparison is weak: RFC 9110, section 13.1.2.
 *
 * @throws BadRequest (400) when the header is neither `*` nor a list of entity tags
 */
export function isNamed(ifNoneMatch: string | undefined, version: number): boolean {
  if (ifNoneMatch === undefined) return false
  const tags = parse('If-None-Match', ifNoneMatch)
  return tags === '*' || tags.some(({ opaque }) => opaque === String(version))
}

/** `*`, or a list of tags between commas, in which elements may be empty: RFC 9110, sections 5.6.1 and 8.8.3. */
function parse(name: string, header: string): Tag[] | '*' {
  if (header.trim() === '*') return '*'
  const element = /[ \t]*(?:(W\/)?"([\x21\x23-\x7e\x80-\xff]*)")?[ \t]*(,|$)/y
  const tags: Tag[] = []
  for (;;) {
    const match = element.exec(header)
    if (match === null) throw new BadRequest(`${name} must be * or a list of entity tags such as "1".`)
    const [, weak, opaque, separator] = match
    if (opaque !== undefined) tags.push({ weak: weak !== undefined, opaque })
    if (separator === '') break
  }
  if (tags.length === 0) throw new BadRequest(`${name} must be * or a list of entity tags such as "1".`)
  return tags
}
