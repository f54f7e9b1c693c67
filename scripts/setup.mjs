// What every command needs first: dependencies and an up-to-date addon. Uses only Node.js itself,
// because nothing else is there on a fresh clone.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** What the addon is made from; it is rebuilt when any of it is newer. */
const SOURCES = ['src', 'Cargo.toml', 'Cargo.lock', 'build.rs', 'package.json']

export class MissingRequirement extends Error {}

/** Runs a step and ends the process with its exit code if it fails. */
export function run(title, command, args, options = {}) {
  console.log(`\n> ${title}`)
  const isScript = process.platform === 'win32' && (command === 'npm' || command === 'npx')
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    shell: isScript,
    ...options
  })
  if (error) console.error(`${command} can't be started: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

export function setUp() {
  installDependencies()
  buildAddon()
}

/** Whether a folder has the dependencies that its package-lock.json lists. */
export function isInstalled(folder) {
  const installed = join(folder, 'node_modules', '.package-lock.json')
  return existsSync(installed) && modified(installed) >= modified(join(folder, 'package-lock.json'))
}

function installDependencies() {
  if (isInstalled(root)) return
  run('Installing the development dependencies', 'npm', ['ci', '--no-audit', '--no-fund'])
}

function buildAddon() {
  const addon = readdirSync(root).find((name) => name.endsWith('.node'))
  const newest = Math.max(...SOURCES.map((source) => newestIn(join(root, source))))
  const generated = join(root, 'native.js')
  if (addon && existsSync(generated) && modified(join(root, addon)) >= newest) return
  requireRust()
  requireCompiler()
  run('Building the addon (some minutes the first time)', 'npm', ['run', '--silent', 'build'])
}

export function requireRust() {
  const manifest = readFileSync(join(root, 'Cargo.toml'), 'utf8')
  const [, wanted] = /^rust-version = "([\d.]+)"/m.exec(manifest)
  let found
  try {
    const version = execFileSync('cargo', ['--version'], { cwd: root, encoding: 'utf8' })
    found = /(\d+\.\d+)/.exec(version)[1]
  } catch {
    throw new MissingRequirement(
      `Rust ${wanted} or newer is needed, and cargo was not found.\n` +
        'Install it from https://rustup.rs, open a new terminal, and run this command again.'
    )
  }
  if (older(found, wanted)) {
    throw new MissingRequirement(
      `Rust ${wanted} or newer is needed, and this is ${found}.\n` +
        'Run `rustup update stable`, and then this command again.'
    )
  }
}

function requireCompiler() {
  if (process.platform === 'win32') return
  const compilers = [process.env.CC, 'cc', 'gcc', 'clang'].filter(Boolean)
  const works = (compiler) => spawnSync(compiler, ['--version'], { stdio: 'ignore' }).status === 0
  if (compilers.some(works)) return
  throw new MissingRequirement(
    'A C compiler is needed, because SQLite is built from source.\n' +
      'Debian and Ubuntu: apt-get install build-essential. Fedora: dnf install gcc. ' +
      'Alpine: apk add build-base. macOS: xcode-select --install.'
  )
}

function older(found, wanted) {
  const [a, b] = [found, wanted].map((version) => version.split('.').map(Number))
  return a[0] !== b[0] ? a[0] < b[0] : a[1] < b[1]
}

function modified(path) {
  return statSync(path).mtimeMs
}

function newestIn(path) {
  if (!statSync(path).isDirectory()) return modified(path)
  return Math.max(...readdirSync(path).map((name) => newestIn(join(path, name))))
}

/** Runs a command's main function; a missing requirement ends it with advice, not with a stack. */
export async function main(command) {
  try {
    await command()
  } catch (error) {
    if (!(error instanceof MissingRequirement)) throw error
    console.error(`\n${error.message}`)
    process.exit(1)
  }
}
