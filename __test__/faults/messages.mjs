// Cuts what two sides of a PostgreSQL connection say into messages
// (https://www.postgresql.org/docs/current/protocol-message-formats.html). What is encrypted stays as
// it comes.

const SSL_REQUEST = 80877103
const GSS_REQUEST = 80877104
const CANCEL_REQUEST = 80877102
const FIRST = new Map([
  [SSL_REQUEST, 'ssl request'],
  [GSS_REQUEST, 'gss request'],
  [CANCEL_REQUEST, 'cancel request']
])
/** How a TLS handshake begins, when nobody has asked for it before. */
const HANDSHAKE = 0x16

/** Takes chunks, and gives messages as `{ type, bytes, body, text }`. */
class Messages {
  #rest = Buffer.alloc(0)

  /** `shared`: what both sides of one connection know. */
  constructor(shared) {
    this.shared = shared
  }

  *take(chunk) {
    this.#rest = Buffer.concat([this.#rest, chunk])
    while (this.#rest.length > 0) {
      const next = this.shared.isEncrypted
        ? { type: 'encrypted', length: this.#rest.length, header: 0 }
        : this.next(this.#rest)
      if (next === undefined || next.length > this.#rest.length) return
      const bytes = this.#rest.subarray(0, next.length)
      this.#rest = this.#rest.subarray(next.length)
      const body = bytes.subarray(next.header)
      yield { type: next.type, bytes, body, text: body.toString() }
    }
  }
}

/** A byte for the type, and a length that counts itself. */
function typed(rest) {
  if (rest.length < 5) return undefined
  return { type: String.fromCharCode(rest[0]), length: 1 + rest.readInt32BE(1), header: 5 }
}

export class ClientMessages extends Messages {
  #isStarted = false

  next(rest) {
    if (this.#isStarted) return typed(rest)
    if (rest[0] === HANDSHAKE) {
      this.shared.isEncrypted = true
      return { type: 'encrypted', length: rest.length, header: 0 }
    }
    if (rest.length < 8) return undefined
    const length = rest.readInt32BE(0)
    if (rest.length < length) return undefined
    const type = FIRST.get(rest.readInt32BE(4)) ?? 'startup'
    if (type === 'ssl request' || type === 'gss request') this.shared.isAsked = true
    else this.#isStarted = true
    return { type, length, header: 8 }
  }
}

export class ServerMessages extends Messages {
  next(rest) {
    if (!this.shared.isAsked) return typed(rest)
    this.shared.isAsked = false
    const answer = String.fromCharCode(rest[0])
    if (answer === 'S' || answer === 'G') this.shared.isEncrypted = true
    return { type: 'encryption answer', length: 1, header: 0 }
  }
}
