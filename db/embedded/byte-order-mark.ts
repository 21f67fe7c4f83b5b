import { PGlite } from '@electric-sql/pglite'

const DATA_ROW = 'D'.charCodeAt(0)
const BYTE_ORDER_MARK = '\ufeff'
const ENCODED_MARK = Buffer.from(BYTE_ORDER_MARK)

type Execute = PGlite['execProtocolStream']
type Message = Awaited<ReturnType<Execute>>[number]

/**
 * PGlite drops a U+FEFF at the start of a text when it reads, because it takes it for a byte order mark. PostgreSQL keeps
 * it, and this class does too.
 */
export class PGliteWithBomFix extends PGlite {
  override async execProtocolStream(...[message, options]: Parameters<Execute>): ReturnType<Execute> {
    // Unlike execProtocolStream, this function also returns the bytes of the messages.
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
  // Each message has a byte for its type, and four bytes for the length, which count themselves.
  for (let at = 0; at < data.length; at += 1 + data.readInt32BE(at + 1)) {
    if (data[at] !== DATA_ROW) continue
    const fields = rows[row++]?.fields ?? []
    // A row has the number of fields, and for each field its length, or -1 for null, and its bytes.
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
