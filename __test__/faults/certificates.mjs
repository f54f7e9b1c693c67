// Certificates for tests of TLS, in the little DER that they need (RFC 5280, ITU-T X.690).

import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'

const SEQUENCE = 0x30
const OIDS = {
  commonName: '550403',
  basicConstraints: '551d13',
  subjectAltName: '551d11',
  ecdsaWithSha256: '2a8648ce3d040302'
}

/** One value with its tag and length. */
function der(tag, ...parts) {
  const content = Buffer.concat(parts)
  const { length } = content
  if (length < 128) return Buffer.concat([Buffer.from([tag, length]), content])
  const digits = Buffer.from(length.toString(16).padStart(length > 0xff ? 4 : 2, '0'), 'hex')
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length]), digits, content])
}

const oid = (name) => der(0x06, Buffer.from(OIDS[name], 'hex'))
const utf8 = (text) => der(0x0c, Buffer.from(text))
const algorithm = der(SEQUENCE, oid('ecdsaWithSha256'))
const nameOf = (common) => der(SEQUENCE, der(0x31, der(SEQUENCE, oid('commonName'), utf8(common))))
const time = (text) => der(0x18, Buffer.from(text))
const validity = der(SEQUENCE, time('20200101000000Z'), time('20991231235959Z'))

function extension(name, isCritical, value) {
  const critical = isCritical ? [der(0x01, Buffer.from([0xff]))] : []
  return der(SEQUENCE, oid(name), ...critical, der(0x04, value))
}

function pem(label, content) {
  const lines = content.toString('base64').match(/.{1,64}/g)
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}

/** A certificate authority. */
export class Authority {
  #keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })

  constructor(name = 'Test authority') {
    this.name = name
    /** Its own certificate, as PEM. */
    this.cert = this.#certify(name, this.#keys.publicKey, [
      extension('basicConstraints', true, der(SEQUENCE, der(0x01, Buffer.from([0xff]))))
    ])
  }

  /**
   * A certificate and its key, each as PEM. `names` and `addresses` (IPv4) are the servers that it
   * stands for; `common` is the user that a client's stands for.
   */
  issue({ common = 'server', names = [], addresses = [] } = {}) {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const alternatives = [
      ...names.map((name) => der(0x82, Buffer.from(name))),
      ...addresses.map((address) => der(0x87, Buffer.from(address.split('.').map(Number))))
    ]
    const extensions = [extension('basicConstraints', true, der(SEQUENCE))]
    if (alternatives.length > 0) {
      extensions.push(extension('subjectAltName', false, der(SEQUENCE, ...alternatives)))
    }
    return {
      cert: this.#certify(common, publicKey, extensions),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' })
    }
  }

  #certify(subject, publicKey, extensions) {
    const serial = Buffer.concat([Buffer.from([0x01]), randomBytes(8)])
    const content = der(
      SEQUENCE,
      der(0xa0, der(0x02, Buffer.from([2]))),
      der(0x02, serial),
      algorithm,
      nameOf(this.name),
      validity,
      nameOf(subject),
      publicKey.export({ type: 'spki', format: 'der' }),
      der(0xa3, der(SEQUENCE, ...extensions))
    )
    const signature = sign('sha256', content, this.#keys.privateKey)
    const whole = der(SEQUENCE, content, algorithm, der(0x03, Buffer.from([0]), signature))
    return pem('CERTIFICATE', whole)
  }
}
