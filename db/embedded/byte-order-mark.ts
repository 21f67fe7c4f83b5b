import { PGlite } from '@electric-sql/pglite'

const DATA_ROW = 'D'.charCodeAt(0)
const BYTE_ORDER_MARK = '\ufeff'
const ENCODED_MARK = Buffer.from(BYTE_ORDER_MARK)

type Execute = PGlite['execProtocolStream']
type Message = Awaited<ReturnType<Execute>>[number]

/**
 * PGlite takes a U+FEFF at the start of a text for a byte order mark and drops it when it reads; here it stays, as it
 * does with PostgreSQL.
 */
export class PGliteWithBomFix extends PGlite {
  override async execProtocolStream(...[message, options]: Parameters<Execute>): ReturnType<Execute> {
    // The same, but that it also tells the bytes that the messages were read from.
    const { messages, data } = await this.execProtocol(message, options)
    restoreMarks(messages, Buffer.from(data.buffer, data.byteOffset, data.byteLength))
    return messages
  }
}

function restoreMarks(messages: Message[], data: Buffer): void {
  if (!data.includes(ENCODED_MARK)) return
  const rows = messages.filter(
    (message): message is Message & { fields: (string | null)[] } =>
      'fields' in message && message.name === 'dataRow'
  )
  let row = 0
  // Each message is a byte for its type, and the length of the rest including these four bytes.
  for (let at = 0; at < data.length; at += 1 + data.readInt32BE(at + 1)) {
    if (data[at] !== DATA_ROW) continue
    const fields = rows[row++]?.fields ?? []
    // The number of fields, and for each its length, -1 for null, and its bytes.
    let field = at + 7
    for (let i = 0; i < fields.length; i++) {
      const length = data.readInt32BE(field)
      field += 4
      if (length < 0) continue
      if (data.subarray(field, field + length).indexOf(ENCODED_MARK) === 0)
        fields[i] = BYTE_ORDER_MARK + fields[i]
      field += length
    }
  }
}
