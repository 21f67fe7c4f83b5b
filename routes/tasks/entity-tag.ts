import { InvalidEntityTags } from '../../plugins/errors/catalogue.js'

/** The strong entity tag of a version: RFC 9110, section 8.8.3. The version is a counter, so tags never return. */
export const entityTag = (version: number): string => `"${version}"`

/**
 * @returns the versions in an `If-Match`; undefined if the header is missing or `*`
 * @throws InvalidEntityTags (400) if the header is neither `*` nor a list of entity tags
 */
export function matchedVersions(ifMatch: string | undefined): number[] | undefined {
  if (ifMatch === undefined) return undefined
  const tags = parse('If-Match', ifMatch)
  return tags === '*' ? undefined : tags.map(versionOf).filter((version) => version !== undefined)
}

/**
 * @returns true if an `If-None-Match` contains this version
 * @throws InvalidEntityTags (400) if the header is neither `*` nor a list of entity tags
 */
export function isNamed(ifNoneMatch: string | undefined, version: number): boolean {
  if (ifNoneMatch === undefined) return false
  const tags = parse('If-None-Match', ifNoneMatch)
  return tags === '*' || tags.some((tag) => versionOf(tag) === version)
}

/**
 * Proxies that compress rewrite our tag. nginx, HAProxy and Envoy make it weak, which `parse` ignores. Apache and Caddy
 * append the encoding: https://bz.apache.org/bugzilla/show_bug.cgi?id=39727.
 *
 * RFC 9110, section 13.1.1, compares `If-Match` strongly, because a weak tag may stand for several contents. Ours cannot:
 * the tag is the version itself, and every change makes a new version.
 *
 * @returns undefined for a tag that is not a version, or that is too large for PostgreSQL's integer
 */
function versionOf(tag: string): number | undefined {
  const version = /^([1-9]\d{0,8})(?:--?(?:gzip|br|zstd|deflate))?$/.exec(tag)?.[1]
  return version === undefined ? undefined : Number(version)
}

/**
 * Parses a list of entity tags, without their quotes, or `*`. The list may have empty elements: RFC 9110, sections 5.6.1
 * and 8.8.3.
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
