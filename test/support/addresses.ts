// Host names with several addresses, for every machine. Loaded with --import, or by a test itself.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

const ADDRESSES: Record<string, string[]> = {
  localhost: ['127.0.0.1', '::1'],
  // No machine has an address of 203.0.113.0/24: RFC 5737.
  'partly.test': ['203.0.113.1', '127.0.0.1', '127.0.0.1'],
  'elsewhere.test': ['203.0.113.1', '203.0.113.2']
}

const { lookup } = dns.promises
Object.assign(dns.promises, {
  async lookup(host: string, options: dns.LookupAllOptions) {
    const addresses = ADDRESSES[host]
    if (!addresses) return lookup(host, options)
    return addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  }
})
syncBuiltinESMExports()
