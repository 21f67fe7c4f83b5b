import { isUtf8 } from 'node:buffer'

/** A request as sent on the connection. */
export interface Sent {
  method: string
  target: string
  headers: [name: string, value: string][]
  body?: Buffer | undefined
  /** The sizes of the first chunks of the body; undefined sends a Content-Length. */
  chunks?: number[] | undefined
}

export function bytesOf({ method, target, headers, body = Buffer.alloc(0), chunks }: Sent): Buffer {
  const framing: Sent['headers'] = chunks
    ? [['Transfer-Encoding', 'chunked']]
    : body.length > 0
      ? [['Content-Length', String(body.length)]]
      : []
  const fields: Sent['headers'] = [['Host', 'api'], ...headers, ...framing]
  const lines = [`${method} ${target} HTTP/1.1`, ...fields.map(([name, value]) => `${name}: ${value}`)]
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  return Buffer.concat([head, chunks ? inChunks(body, chunks) : body])
}

function inChunks(body: Buffer, sizes: number[]): Buffer {
  const pieces: Buffer[] = []
  let at = 0
  for (let n = 0; at < body.length; n++) {
    const piece = body.subarray(at, at + (sizes[n] ?? body.length))
    pieces.push(Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n'))
    at += piece.length
  }
  return Buffer.concat([...pieces, Buffer.from('0\r\n\r\n')])
}

/** The request as a curl command for a service on its default port. Bytes are in base64. */
export function show({ method, target, headers, body, chunks }: Sent): string {
  const fields: Sent['headers'] = [
    ...headers,
    ...(chunks ? [['Transfer-Encoding', 'chunked'] as [string, string]] : [])
  ]
  const options = fields.map(
    ([name, value]) => `-H ${quote(value === '' ? `${name};` : `${name}: ${value}`)}`
  )
  const curl = `curl -i --path-as-is -X ${method} ${options.join(' ')} ${quote(`http://127.0.0.1:3000${target}`)}`
  if (body === undefined || body.length === 0) return curl
  const command = `base64 -d <<< ${body.toString('base64')} | ${curl} --data-binary @-`
  return isUtf8(body) ? `${command}\nbody: ${JSON.stringify(body.toString())}` : command
}

const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`
