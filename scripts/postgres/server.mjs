// A throw-away PostgreSQL for tests: on loopback and in a temporary folder, and gone with the process
// that started it.

import { randomBytes } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'

import { giveSecret } from './account.mjs'
import { binaries } from './binaries.mjs'
import { Supervised } from './supervised.mjs'

const isWindows = process.platform === 'win32'

/** Nothing is asked of a server for longer than this. */
const READY_MS = 60_000

const SETTINGS = {
  // What is acknowledged must survive, as on any server.
  fsync: 'on',
  synchronous_commit: 'on',
  // Suites run side by side, and each store has a pool.
  max_connections: '300',
  shared_buffers: '64MB',
  log_min_messages: 'warning',
  log_line_prefix: '%m [%p] %a ',
  timezone: 'UTC'
}

/**
 * Starts a server and resolves when it takes connections. `version`: a major version, instead of that
 * which is installed (see binaries.mjs); `settings`: of postgresql.conf; `ssl`: `{ cert, key, ca }`,
 * each PEM; `hba`: lines that come before those of pg_hba.conf.
 */
export async function startPostgres({
  version = process.env.FACTSTR_TEST_POSTGRES_VERSION || undefined,
  settings = {},
  ssl,
  hba = []
} = {}) {
  const supervised = new Supervised()
  try {
    const folder = await supervised.call('folder')
    const binDir = binaries(version, folder)
    const server = new PostgresServer(supervised, { folder, binDir, name: 'primary' })
    await server.initialize({ settings, ssl, hba })
    await server.start()
    return server
  } catch (error) {
    await supervised.end()
    throw error
  }
}

export class PostgresServer {
  host = '127.0.0.1'
  user = 'postgres'
  /** Has what a URL can't have as it is. */
  password = `p@ss w:rd/%?#&+='${randomBytes(8).toString('hex')}`
  #supervised
  #name

  constructor(supervised, { folder, binDir, name, password }) {
    this.#supervised = supervised
    this.#name = name
    /** Holds all that belongs to the server. */
    this.folder = folder
    this.binDir = binDir
    this.dataDir = join(folder, name)
    this.logFile = join(folder, `${name}.log`)
    /** Where the Unix socket is: the shortest path there can be. `null` on Windows. */
    this.socketDir = isWindows ? null : folder
    if (password !== undefined) this.password = password
  }

  /** Of the database `postgres`, by TCP. */
  get url() {
    return this.urlOf({})
  }

  urlOf({ database = 'postgres', host = this.host, port = this.port, user = this.user, password }) {
    const secret = encodeURIComponent(password ?? this.password)
    return `postgresql://${encodeURIComponent(user)}:${secret}@${host}:${port}/${database}`
  }

  /** Of the same database, by the Unix socket. */
  get socketUrl() {
    const login = `${this.user}:${encodeURIComponent(this.password)}`
    return `postgresql://${login}@/postgres?host=${encodeURIComponent(this.socketDir)}&port=${this.port}`
  }

  get supervised() {
    return this.#supervised
  }

  async initialize({ settings, ssl, hba }) {
    const secret = join(this.folder, 'secret')
    writeFileSync(secret, `${this.password}\n`)
    giveSecret(secret)
    await this.run('initdb', [
      ...['--pgdata', this.dataDir, '--username', this.user, '--pwfile', secret],
      ...['--auth', 'scram-sha-256', '--encoding', 'UTF8', '--locale', 'C', '--no-sync']
    ])
    const files = {}
    if (ssl) {
      files.ssl = 'on'
      for (const [setting, pem] of [
        ['ssl_cert_file', ssl.cert],
        ['ssl_key_file', ssl.key],
        ['ssl_ca_file', ssl.ca]
      ]) {
        if (pem === undefined) continue
        const path = join(this.dataDir, `${setting}.pem`)
        writeFileSync(path, pem)
        giveSecret(path)
        files[setting] = path
      }
    }
    this.configure({ password_encryption: 'scram-sha-256', ...SETTINGS, ...files, ...settings })
    const rules = join(this.dataDir, 'pg_hba.conf')
    writeFileSync(rules, [...hba, readFileSync(rules, 'utf8')].join('\n'))
  }

  /** Settings that hold from the next start on. */
  configure(settings) {
    const quoted = (value) => `'${String(value).replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quoted(value)}\n`)
    appendFileSync(join(this.dataDir, 'postgresql.conf'), lines.join(''))
  }

  async start() {
    const deadline = Date.now() + READY_MS
    for (;;) {
      this.port ??= await freePort()
      const before = this.log().length
      await this.#launch()
      const end = await this.#readyOrEnded(deadline)
      if (end === null) return
      const said = this.log().slice(before)
      // Somebody else was quicker to take the port, or backends of a killed server are still ending.
      const isPassing = /in use|another server|Address already/.test(said)
      if (!isPassing || Date.now() > deadline) {
        throw new Error(`PostgreSQL did not start (${end}):\n${said}`)
      }
      if (/could not bind|Address already/.test(said)) this.port = undefined
      await sleep(20)
    }
  }

  async #launch() {
    const args = ['-D', this.dataDir, '-h', this.host, '-p', String(this.port)]
    if (!isWindows) {
      args.push('-k', this.socketDir)
      const program = join(this.binDir, 'postgres')
      const [name, log] = [this.#name, this.logFile]
      const options = { name, program, args, env: environment(), log, politely: 'SIGINT' }
      this.pid = await this.#supervised.call('start', options)
      return
    }
    const ctl = join(this.binDir, 'pg_ctl')
    const given = args.slice(2).join(' ')
    const start = ['start', '-w', '-D', this.dataDir, '-l', this.logFile, '-o', given]
    await this.run('pg_ctl', start)
    const stop = { program: ctl, args: ['stop', '-D', this.dataDir, '-m', 'fast', '-w'] }
    const pidFile = join(this.dataDir, 'postmaster.pid')
    this.pid = await this.#supervised.call('adopt', { name: this.#name, pidFile, stop })
  }

  /** Asks until the server answers as one that takes connections, or has ended: then how. */
  async #readyOrEnded(deadline) {
    for (;;) {
      const end = await this.#supervised.call('end', { name: this.#name })
      if (end !== null) return end
      const client = this.client()
      try {
        await client.connect()
        const { rows } = await client.query('SHOW data_directory')
        if (rows[0].data_directory === this.dataDir || isWindows) return null
      } catch (error) {
        // One that refuses this client by its rules takes connections; one that is starting does not yet.
        if (error.severity !== undefined && error.code !== '57P03') return null
        if (Date.now() > deadline) {
          throw new Error(`PostgreSQL takes no connections (${error.message}):\n${this.log()}`, {
            cause: error
          })
        }
      } finally {
        await client.end().catch(() => {})
      }
      await sleep(20)
    }
  }

  /** A client of `pg`, not connected yet. */
  client(options = {}) {
    const { host, port, user, password } = this
    return new pg.Client({ host, port, user, password, database: 'postgres', ...options })
  }

  /** Runs one statement on a connection of its own, and resolves to its rows. */
  async query(text, values, options) {
    const client = this.client(options)
    await client.connect()
    try {
      return (await client.query(text, values)).rows
    } finally {
      await client.end()
    }
  }

  /** Runs one of the server's programs to its end. */
  async run(name, args, env = {}) {
    const program = join(this.binDir, name)
    const call = { program, args, env: { ...environment(), ...env } }
    const { code, output } = await this.#supervised.call('run', call)
    if (code !== 0) throw new Error(`${name} failed (${code}):\n${output}`)
    return output
  }

  /** What the server has said. */
  log() {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : ''
  }

  /** Creates an empty database and resolves to its URL. */
  async createDatabase(name) {
    const quoted = pg.escapeIdentifier(name)
    await this.query(`CREATE DATABASE ${quoted} TEMPLATE template0`)
    return this.urlOf({ database: encodeURIComponent(name) })
  }

  /** `fast` ends sessions, `smart` waits for them, `immediate` is a crash that is told. It can be started again. */
  async halt(mode = 'fast') {
    const signal = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' }[mode]
    await this.#supervised.call('stop', { name: this.#name, signal })
  }

  /** The server dies, as by `kill -9`. It can be started again. */
  async kill() {
    await this.#supervised.call('stop', { name: this.#name, signal: 'SIGKILL' })
  }

  /** On the same port, with new settings if there are any. */
  async restart({ mode, settings = {} } = {}) {
    await this.halt(mode)
    this.configure(settings)
    await this.start()
  }

  /** The end: of the server, its folder, and what else runs beside it. */
  async stop(mode) {
    if (mode !== undefined) await this.halt(mode)
    await this.#supervised.end()
  }
}

/** Nothing of the caller's settings of PostgreSQL and language reaches a server. */
export function environment() {
  const own = Object.entries(process.env).filter(([name]) => !/^(PG|LC_|LANG)/i.test(name))
  return { ...Object.fromEntries(own), LC_ALL: 'C', TZ: 'UTC' }
}

/** A port that nobody has just now. */
export async function freePort() {
  const listener = createServer()
  await new Promise((resolve, reject) => {
    listener.on('error', reject)
    listener.listen(0, '127.0.0.1', resolve)
  })
  const { port } = listener.address()
  await new Promise((resolve) => {
    listener.close(resolve)
  })
  return port
}
