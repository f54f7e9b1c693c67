// A primary and a standby that each commit waits for.

import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { give } from './account.mjs'
import { PostgresServer, startPostgres } from './server.mjs'

const NAME = 'standby'

/**
 * Starts both, with the options of startPostgres, and resolves when commits wait for the standby.
 * Stopping one of them stops both; `halt`, `kill`, `start` and `restart` are of one alone.
 */
export async function startReplicated(options) {
  const primary = await startPostgres(options)
  try {
    const { folder, binDir, password, supervised } = primary
    const standby = new PostgresServer(supervised, { folder, binDir, password, name: NAME })
    // The server is new, so nobody minds that it stops for the copy.
    await primary.halt()
    cpSync(primary.dataDir, standby.dataDir, { recursive: true })
    writeFileSync(join(standby.dataDir, 'standby.signal'), '')
    give(standby.dataDir)
    await primary.start()
    await primary.query('SELECT pg_create_physical_replication_slot($1)', [NAME])
    standby.configure({
      primary_conninfo: conninfo({
        host: primary.host,
        port: primary.port,
        user: primary.user,
        password,
        application_name: NAME
      }),
      primary_slot_name: NAME
    })
    await standby.start()
    await setSynchronous(primary, true)
    return new Replicated(primary, standby)
  } catch (error) {
    await primary.stop()
    throw error
  }
}

class Replicated {
  constructor(primary, standby) {
    this.primary = primary
    this.standby = standby
  }

  /** Of both, in that order; the one that takes writes is wanted. */
  get url() {
    const hosts = [this.primary, this.standby].map(({ host, port }) => `${host}:${port}`)
    const login = `${this.primary.user}:${encodeURIComponent(this.primary.password)}`
    return `postgresql://${login}@${hosts.join(',')}/postgres?target_session_attrs=read-write`
  }

  /** Whether commits wait for the standby. Without one that answers, they wait for ever. */
  async setSynchronous(isSynchronous) {
    await setSynchronous(this.primary, isSynchronous)
  }

  /** The standby takes writes from now on, whatever the primary does. It waits for nobody. */
  async promote() {
    const [{ done }] = await this.standby.query('SELECT pg_promote(true, 60) AS done')
    if (!done) throw new Error(`the standby can't be promoted:\n${this.standby.log()}`)
  }

  async stop() {
    await this.primary.stop()
  }
}

async function setSynchronous(primary, isSynchronous) {
  const names = isSynchronous ? NAME : ''
  await primary.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`)
  await primary.query('SELECT pg_reload_conf()')
  if (!isSynchronous) return
  for (;;) {
    const states = await primary.query('SELECT sync_state FROM pg_stat_replication')
    if (states.some(({ sync_state: state }) => state === 'sync')) return
    await sleep(10)
  }
}

function conninfo(settings) {
  return Object.entries(settings)
    .map(([name, value]) => `${name}='${String(value).replace(/['\\]/g, String.raw`\$&`)}'`)
    .join(' ')
}
