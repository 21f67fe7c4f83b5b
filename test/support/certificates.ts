import forge from 'node-forge'

const DAY_MS = 86_400_000

export interface Certificate {
  /** Both as PEM. */
  certificate: string
  key: string
}

export interface Subject {
  /** DNS names; `localhost` unless given. */
  names?: string[]
  /** IP addresses; 127.0.0.1 unless given. */
  addresses?: string[]
  /** True for an expired certificate. */
  isExpired?: boolean
}

export interface Authority {
  /** The authority's certificate, as PEM. */
  certificate: string
  /** A certificate for a server, signed by this authority. */
  issue(subject?: Subject): Certificate
}

/**
 * Creates a certificate authority that no client trusts yet. Node can read X.509 certificates, but not create them.
 */
export function makeAuthority(): Authority {
  const keys = forge.pki.rsa.generateKeyPair(2048)
  // All servers share one key pair. Creating one takes long, and would delay a test's clients.
  const server = forge.pki.rsa.generateKeyPair(2048)
  const name = [{ name: 'commonName', value: 'Test authority' }]
  let serial = 1

  function sign(
    subject: forge.pki.CertificateField[],
    publicKey: forge.pki.PublicKey,
    extensions: object[],
    end = Date.now() + DAY_MS
  ): string {
    const certificate = forge.pki.createCertificate()
    certificate.serialNumber = (serial++).toString(16).padStart(2, '0')
    certificate.publicKey = publicKey
    certificate.validity.notBefore = new Date(end - 2 * DAY_MS)
    certificate.validity.notAfter = new Date(end)
    certificate.setSubject(subject)
    certificate.setIssuer(name)
    certificate.setExtensions(extensions)
    certificate.sign(keys.privateKey, forge.md.sha256.create())
    return forge.pki.certificateToPem(certificate)
  }

  return {
    certificate: sign(name, keys.publicKey, [{ name: 'basicConstraints', cA: true, critical: true }]),
    issue({ names = ['localhost'], addresses = ['127.0.0.1'], isExpired = false } = {}) {
      const altNames = [
        ...names.map((value) => ({ type: 2, value })),
        ...addresses.map((ip) => ({ type: 7, ip }))
      ]
      return {
        certificate: sign(
          [{ name: 'commonName', value: 'Test server' }],
          server.publicKey,
          [{ name: 'subjectAltName', altNames }],
          isExpired ? Date.now() - DAY_MS : undefined
        ),
        key: forge.pki.privateKeyToPem(server.privateKey)
      }
    }
  }
}
