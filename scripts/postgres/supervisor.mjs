// Holds the servers of one process and a temporary folder. When that process ends, however it does,
// the channel to it closes: then this one stops the servers, removes the folder and ends.

import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { account, canReach, give } from './account.mjs'

/** A server that does not stop when it is asked to is killed after this long. */
const PATIENCE_MS = 30_000

let folder
/** By the name that it was started with. */
const servers = new Map()

const commands = {
  /** Makes the folder, in which a Unix socket's path must not get too long. */
  folder() {
    const temporary = tmpdir()
    const isFit = process.platform === 'win32' || (temporary.length < 60 && canReach(temporary))
    folder = mkdtempSync(join(isFit ? temporary : '/tmp', 'factstr-pg-'))
    chmodSync(folder, 0o700)
    give(folder)
    return folder
  },

  /** Runs a program to its end. */
  async run({ program, args, env }) {
    const child = spawn(program, args, { ...account(), cwd: folder, env, windowsHide: true })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data) => {
        output += data
      })
    }
    child.stdin.end()
    const code = await new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (exit, signal) => resolve(signal ?? exit))
    })
    return { code, output }
  },

  /** Starts a server that stays; what it says goes to the file `log`. */
  start({ name, program, args, env, log, politely }) {
    const out = openSync(log, 'a')
    const child = spawn(program, args, {
      ...account(),
      cwd: folder,
      env,
      stdio: ['ignore', out, out]
    })
    closeSync(out)
    const server = { child, politely, end: undefined }
    server.ended = new Promise((resolve) => {
      const over = (how) => {
        server.end = String(how)
        resolve()
      }
      child.on('error', (error) => over(error.message))
      child.on('exit', (code, signal) => over(signal ?? `code ${code}`))
    })
    servers.set(name, server)
    return child.pid ?? null
  },

  /** Windows: `pg_ctl` has started this one, since PostgreSQL does not run with an administrator's rights. */
  adopt({ name, pidFile, stop }) {
    const pid = Number(readFileSync(pidFile, 'utf8').split('\n')[0])
    const server = { stop, end: undefined }
    server.ended = (async () => {
      while (isAlive(pid)) await sleep(20)
      server.end = 'ended'
    })()
    server.child = { pid, kill: () => process.kill(pid) }
    servers.set(name, server)
    return pid
  },

  /** How a server ended, `null` while it has not. */
  end({ name }) {
    return servers.get(name)?.end ?? null
  },

  /** Stops a server, with that signal or as it likes best, and waits for its end. */
  async stop({ name, signal }) {
    const server = servers.get(name)
    if (server === undefined || server.end !== undefined) return
    await bringDown(server, signal)
  },

  async over() {
    await Promise.all([...servers.values()].map((server) => bringDown(server)))
    // A backend may write its last file a moment later than its server ends.
    if (folder) rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    folder = undefined
  }
}

function isAlive(pid) {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

async function bringDown(server, signal = server.politely) {
  if (server.end !== undefined) return
  if (server.stop && signal !== 'SIGKILL') await commands.run(server.stop)
  else server.child.kill(signal)
  const patience = new AbortController()
  const late = sleep(PATIENCE_MS, true, { signal: patience.signal }).catch(() => false)
  if (await Promise.race([late, server.ended])) server.child.kill('SIGKILL')
  patience.abort()
  await server.ended
}

let ending
function end() {
  ending ??= commands.over().finally(() => process.exit())
  return ending
}

process.on('disconnect', end)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, end)
process.on('message', async ({ id, command, ...rest }) => {
  let answer
  try {
    answer = { id, value: await commands[command](rest) }
  } catch (error) {
    answer = { id, failure: error.message }
  }
  if (process.connected) process.send(answer)
})
