import { InvalidEntityTags } from '../../plugins/errors/catalogue.js'

/** The strong entity tag of a version: RFC 9110, section 8.8.3. It comes from a count, so no clock can repeat it. */
export const entityTag = (version: number): string => `"${version}"`

/**
 * The versions that an `If-Match` names, or undefined when the header is missing or is `*`.
 *
 * @throws InvalidEntityTags (400) when the header is neither `*` nor a list of entity tags
 */
export function matchedVersions(ifMatch: string | undefined): number[] | undefined {
  if (ifMatch === undefined) return undefined
  const tags = parse('If-Match', ifMatch)
  return tags === '*' ? undefined : tags.map(versionOf).filter((version) => version !== undefined)
}

/**
 * Whether an `If-None-Match` names this version.
 *
 * @throws InvalidEntityTags (400) when the header is neither `*` nor a list of entity tags
 */
export function isNamed(ifNoneMatch: string | undefined, version: number): boolean {
  if (ifNoneMatch === undefined) return false
  const tags = parse('If-None-Match', ifNoneMatch)
  return tags === '*' || tags.some((tag) => versionOf(tag) === version)
}

/**
 * The version that a tag names; undefined for "x", or for a number too large for PostgreSQL's integer.
 *
 * Compressing proxies rewrite our tag. nginx, HAProxy and Envoy make it weak, which `parse` passes over. Apache and
 * Caddy append the encoding: https://bz.apache.org/bugzilla/show_bug.cgi?id=39727.
 *
 * RFC 9110, section 13.1.1, compares `If-Match` strongly, because a weak tag may stand for several contents. Ours
 * cannot: the tag is the version itself, and every change makes a new version.
 */
function versionOf(tag: string): number | undefined {
  const version = /^([1-9]\d{0,8})(?:--?(?:gzip|br|zstd|deflate))?$/.exec(tag)?.[1]
  return version === undefined ? undefined : Number(version)
}

/**
 * `*`, or what stands between the quotes of each tag in a list between commas. Its elements may be empty: RFC 9110,
 * sections 5.6.1 and 8.8.3.
 */
function parse(name: string, header: string): string[] | '*' {
  if (header.trim() === '*') return '*'
  const element = /[ \t]*(?:(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)")?[ \t]*(,|$)/y
  const tags: string[] = []
  for (;;) {
    const match = element.exec(header)
    if (match === null) throw new InvalidEntityTags(name)
    const [, tag, separator] = match
    if (tag !== undefined) tags.push(tag)
    if (separator === '') break
  }
  if (tags.length === 0) throw new InvalidEntityTags(name)
  return tags
}
