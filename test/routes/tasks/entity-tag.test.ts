import { problemCodeOf } from '../../../plugins/errors/catalogue.js'
import { entityTag, isNamed, matchedVersions } from '../../../routes/tasks/entity-tag.js'
import t from '../../support/tap.js'

t.test('an entity tag is strong and quoted', async (t) => {
  t.equal(entityTag(12), '"12"')
})

t.test('If-Match has versions, also in tags that a compressing proxy changed', async (t) => {
  const cases: [header: string | undefined, versions: number[] | undefined][] = [
    [undefined, undefined],
    ['*', undefined],
    [' * ', undefined],
    ['"1"', [1]],
    ['"1","2"', [1, 2]],
    ['"1" ,\t"2" , "30"', [1, 2, 30]],
    // RFC 9110, section 5.6.1: a recipient must accept empty list elements.
    [', "1", , "2",', [1, 2]],
    // A comma inside the quotes is part of the tag.
    ['"1,2"', []],
    ['W/"1"', [1]],
    ['W/"1", "2" , W/"3"', [1, 2, 3]],
    ['W/"x", W/"01", W/""', []],
    ['"1-gzip", "2-br", "3-zstd", "4-deflate", "5--gzip", W/"6-gzip"', [1, 2, 3, 4, 5, 6]],
    ['"1-", "1-x", "1---gzip", "-gzip", "1-gzip-br", "1gzip", "1-GZIP"', []],
    ['"x", "-1", "01", "1.0", ""', []],
    // Larger than any integer of PostgreSQL.
    ['"2147483648", "99999999999999999999"', []],
    ['"\xe4"', []]
  ]
  for (const [header, versions] of cases)
    t.strictSame(matchedVersions(header), versions, JSON.stringify(header))
})

t.test('If-None-Match compares versions weakly', async (t) => {
  const cases: [header: string | undefined, named: boolean][] = [
    [undefined, false],
    ['*', true],
    ['"7"', true],
    ['W/"7"', true],
    ['"6", W/"7"', true],
    ['"7-gzip"', true],
    ['"6-gzip"', false],
    ['"6"', false],
    ['"07"', false]
  ]
  for (const [header, named] of cases) t.equal(isNamed(header, 7), named, JSON.stringify(header))
})

t.test('a value that is no list of entity tags is a bad request', async (t) => {
  const malformed = [
    '',
    ' ',
    ',',
    ', ,',
    '1',
    '"1',
    '1"',
    '"1" "2"',
    '*, "1"',
    '"1", *',
    'w/"1"',
    'W/ "1"',
    '"1"; "2"',
    '"a"b"'
  ]
  for (const header of malformed) {
    for (const read of [() => matchedVersions(header), () => isNamed(header, 1)]) {
      try {
        read()
        t.fail(`${JSON.stringify(header)} was taken`)
      } catch (error) {
        t.equal(problemCodeOf(error), 'bad_request', JSON.stringify(header))
      }
    }
  }
})
