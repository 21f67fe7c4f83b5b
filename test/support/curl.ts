import { parseArgs } from 'node:util'

// The options of curl that the documentation uses, for machines without curl.
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    silent: { type: 'boolean', short: 's' },
    request: { type: 'string', short: 'X', default: 'GET' },
    header: { type: 'string', short: 'H', multiple: true, default: [] },
    data: { type: 'string', short: 'd' }
  }
})
const headers = values.header.map((header) => header.split(/: */, 2) as [string, string])
const response = await fetch(positionals[0] as string, {
  method: values.request,
  headers,
  ...(values.data !== undefined && { body: values.data })
})
process.stdout.write(await response.text())
