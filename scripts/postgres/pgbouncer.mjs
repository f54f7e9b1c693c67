// The pooler that most stand before PostgreSQL, as the system's packages have it.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'

import { giveSecret } from './account.mjs'
import { environment, freePort } from './server.mjs'
import { Supervised } from './supervised.mjs'

/** Why it can't be tested here, if so: only systems that run it as a server bring it. */
export const reasonAgainst =
  process.platform === 'linux' ? undefined : `PgBouncer is not tested on ${process.platform}.`

/**
 * Starts one before a server, given by its URL or as startPostgres resolves to it. It lets the same
 * user in with the same password, and refuses start-up parameters that it does not know, as it does
 * by default. `settings` are those of its section `pgbouncer`; `port`: that of one that has ended.
 */
export async function startPgBouncer(
  server,
  { poolMode = 'transaction', settings = {}, port: again } = {}
) {
  const { program, version } = installed()
  const target = new URL(typeof server === 'string' ? server : server.url)
  const url = new URL(target)
  const supervised = new Supervised()
  try {
    const folder = await supervised.call('folder')
    const [users, config, log] = ['users.txt', 'pgbouncer.ini', 'pgbouncer.log'].map((name) =>
      join(folder, name)
    )
    const quoted = (text) => `"${decodeURIComponent(text).replaceAll('"', '""')}"`
    writeFileSync(users, `${quoted(url.username)} ${quoted(url.password)}\n`)
    giveSecret(users)
    url.hostname = '127.0.0.1'
    const deadline = Date.now() + 30_000
    for (;;) {
      const port = again ?? (await freePort())
      const own = {
        listen_addr: '127.0.0.1',
        listen_port: port,
        unix_socket_dir: '',
        auth_type: 'scram-sha-256',
        auth_file: users,
        pool_mode: poolMode,
        max_client_conn: 500,
        // Off, as in releases before 1.21, which have no such setting.
        ...(atLeast(version, 1, 21) && { max_prepared_statements: 0 }),
        ...settings
      }
      writeFileSync(
        config,
        [
          '[databases]',
          `* = host=${target.hostname} port=${target.port || 5432}`,
          '[pgbouncer]',
          ...Object.entries(own).map(([name, value]) => `${name} = ${value}`),
          ''
        ].join('\n')
      )
      giveSecret(config)
      url.port = String(port)
      const name = `pgbouncer ${port}`
      const start = { name, program, args: [config], env: environment(), log, politely: 'SIGTERM' }
      await supervised.call('start', start)
      const said = () => (existsSync(log) ? readFileSync(log, 'utf8') : '')
      const end = await readyOrEnded(url.href, deadline, () => supervised.call('end', { name }))
      if (end === null) {
        const urlOf = ({ database }) =>
          Object.assign(new URL(url), { pathname: `/${database}` }).href
        const stop = () => supervised.end()
        return { url: url.href, urlOf, port, version, log: said, stop }
      }
      if (!/in use/.test(said()) || Date.now() > deadline) {
        throw new Error(`PgBouncer did not start (${end}):\n${said()}`)
      }
    }
  } catch (error) {
    await supervised.end()
    throw error
  }
}

async function readyOrEnded(connectionString, deadline, ended) {
  for (;;) {
    const end = await ended()
    if (end !== null) return end
    const client = new pg.Client({ connectionString })
    try {
      await client.connect()
      await client.query('SELECT 1')
      return null
    } catch (error) {
      if (Date.now() > deadline) return error.message
    } finally {
      await client.end().catch(() => {})
    }
    await sleep(20)
  }
}

/** Finds it, or installs it where that needs nobody's consent. */
function installed() {
  if (reasonAgainst) throw new Error(reasonAgainst)
  let found = find()
  if (found === undefined && process.getuid() === 0 && works('apt-get', ['--version'])) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    const install = ['install', '--yes', '--no-install-recommends', 'pgbouncer']
    if (!works('apt-get', install, env) && works('apt-get', ['update'], env)) {
      works('apt-get', install, env)
    }
    found = find()
  }
  if (found !== undefined) return found
  throw new Error(
    'PgBouncer is needed. Debian and Ubuntu: apt-get install pgbouncer. ' +
      'Fedora: dnf install pgbouncer. Alpine: apk add pgbouncer.'
  )
}

const works = (program, args, env = process.env) =>
  spawnSync(program, args, { stdio: 'ignore', env }).status === 0

function find() {
  for (const program of ['pgbouncer', '/usr/sbin/pgbouncer', '/usr/bin/pgbouncer']) {
    try {
      const said = execFileSync(program, ['--version'], { encoding: 'utf8' })
      return { program, version: /PgBouncer (\d+\.\d+)/.exec(said)[1] }
    } catch {
      // It is not there.
    }
  }
  return undefined
}

function atLeast(version, ...wanted) {
  const [major, minor] = version.split('.').map(Number)
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1])
}
