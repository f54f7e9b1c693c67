'use strict'

const { NativePostgresStore } = require('../native.js')
const {
  takeInteger,
  takeMembers,
  takeOptions,
  takePositiveInteger,
  takeString,
  taking
} = require('./arguments.js')
const { FactstrError, settle } = require('./error.js')
const { OpeningBackend } = require('./opening-backend.js')
const { Store } = require('./store.js')

const OPTIONS = [
  'schema',
  'maxConnections',
  'connectTimeoutMs',
  'statementTimeoutMs',
  'applicationName',
  'pollIntervalMs',
  'tls'
]
const TLS_OPTIONS = ['ca', 'cert', 'key', 'serverName']
/** A server takes fewer by far. */
const MOST_CONNECTIONS = 10_000

/** What `FactstrPostgresStore.bootstrap` hands to the constructor instead of a URL. */
class Bootstrap {
  constructor(options) {
    this.options = options
  }
}

class FactstrPostgresStore extends Store {
  #backend

  constructor(url, options) {
    const take = () =>
      url instanceof Bootstrap ? takeBootstrap(url.options) : takeUrl(url, options)
    const backend = new OpeningBackend(NativePostgresStore, take)
    super(backend)
    this.#backend = backend
  }

  static async connect(url, options) {
    const store = new this(url, options)
    settle(await store.#backend.open())
    return store
  }

  static async bootstrap(options) {
    const store = new this(new Bootstrap(options))
    settle(await store.#backend.open())
    return store
  }
}

function takeUrl(url, given) {
  takeString(url, 'url')
  return [url, takePostgresOptions(takeOptions(given, OPTIONS))]
}

function takeBootstrap(given) {
  const known = ['serverUrl', 'databaseName', ...OPTIONS]
  const options = taking('options', () => takeMembers(given, 'options', known, 'option'))
  const url = takeString(options.serverUrl, 'options.serverUrl')
  const databaseName = takeString(options.databaseName, 'options.databaseName')
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,62}$/.test(databaseName)) {
    const expected = 'must match [A-Za-z_][A-Za-z0-9_]* and have at most 63 characters'
    throw new FactstrError('InvalidOptions', `options.databaseName: ${expected}`)
  }
  return [url, { ...takePostgresOptions(options), databaseName }]
}

function takePostgresOptions(options) {
  const tls = taking('options.tls', () =>
    takeMembers(options.tls ?? {}, 'options.tls', TLS_OPTIONS, 'option')
  )
  const maxConnections = takePositiveInteger(options.maxConnections, 'options.maxConnections', 8)
  return {
    schema: takeOptionalString(options.schema, 'options.schema'),
    maxConnections: Math.min(maxConnections, MOST_CONNECTIONS),
    connectTimeout: takeInteger(options.connectTimeoutMs, 'options.connectTimeoutMs', 1, 10_000),
    statementTimeout: takeInteger(
      options.statementTimeoutMs,
      'options.statementTimeoutMs',
      0,
      30_000
    ),
    applicationName: takeOptionalString(options.applicationName, 'options.applicationName'),
    pollInterval: takeInteger(options.pollIntervalMs, 'options.pollIntervalMs', 1, 100),
    ca: takePem(tls.ca, 'options.tls.ca'),
    cert: takePem(tls.cert, 'options.tls.cert'),
    key: takePem(tls.key, 'options.tls.key'),
    serverName: takeOptionalString(tls.serverName, 'options.tls.serverName')
  }
}

function takeOptionalString(value, path) {
  if (value === undefined || value === null) return undefined
  if (!takeString(value, path).includes('\0')) return value
  throw new FactstrError('InvalidOptions', `${path}: the character U+0000 can't be sent`)
}

/** PEM as `node:fs` reads it, with or without an encoding. */
function takePem(value, path) {
  if (value instanceof Uint8Array) return new TextDecoder().decode(value)
  if (value === undefined || value === null || typeof value === 'string') {
    return takeOptionalString(value, path)
  }
  throw new FactstrError('InvalidOptions', `${path}: must be a string or a Uint8Array`)
}

module.exports = { FactstrPostgresStore }
