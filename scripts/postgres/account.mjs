// PostgreSQL and PgBouncer refuse to run as root: then they run as `nobody`, which every Unix has.

import { chmodSync, chownSync, lchownSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** The ids to run a server with: none unless this is root. */
export function account() {
  if (process.getuid?.() !== 0) return {}
  const line = /^nobody:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8'))
  return { uid: Number(line?.[1] ?? 65534), gid: Number(line?.[2] ?? 65534) }
}

/** Gives a folder and all in it to the account that the server runs as. */
export function give(path) {
  const { uid, gid } = account()
  if (uid === undefined) return
  lchownSync(path, uid, gid)
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const inner = join(path, entry.name)
    if (entry.isDirectory()) give(inner)
    else lchownSync(inner, uid, gid)
  }
}

/** The same for one file, which nobody else may read then. */
export function giveSecret(path) {
  const { uid, gid } = account()
  chmodSync(path, 0o600)
  if (uid !== undefined) chownSync(path, uid, gid)
}

/** Whether the account can get at a folder: root's home, for one, is closed to it. */
export function canReach(path) {
  if (account().uid === undefined) return true
  for (let at = path; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false
    if (at === dirname(at)) return true
  }
}
