// What `npm pack` makes, installed into an empty project without a network.

import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'
let folder
let project

function run(command, args, cwd) {
  const shell = process.platform === 'win32'
  return execFileSync(command, args, { cwd, encoding: 'utf8', shell, stdio: 'pipe' })
}

function pack(source) {
  return join(
    folder,
    JSON.parse(run(npm, ['pack', '--json', '--pack-destination', folder], source))[0].filename
  )
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'factstr-package-'))
  const binary = readdirSync(root).find((name) => name.endsWith('.node'))
  const platform = /^factstr-node\.(.+)\.node$/.exec(binary)[1]
  const platformPackage = join(folder, 'platform')
  cpSync(join(root, 'npm', platform), platformPackage, { recursive: true })
  cpSync(join(root, binary), join(platformPackage, binary))
  for (const licence of ['LICENSE-MIT', 'LICENSE-APACHE']) {
    cpSync(join(root, licence), join(platformPackage, licence))
  }
  const tarballs = [pack(root), pack(platformPackage)]
  project = join(folder, 'project')
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "name": "consumer", "private": true }')
  run(npm, ['install', '--offline', '--no-audit', '--no-fund', ...tarballs], project)
})

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

const story = `
const stores = [new FactstrMemoryStore(), new FactstrSqliteStore('data/store.db')]
async function main() {
  for (const store of stores) {
    await store.append([{ event_type: 'a', payload: { n: 1 } }])
    const { event_records: records } = await store.query({
      filters: [{ payload_predicates: [{ n: 1 }] }]
    })
    const refusal = await store.append([]).catch((error) => error)
    console.log(records[0].sequence_number, records[0].payload.n, refusal instanceof FactstrError)
  }
}
main()
`
const names = '{ FactstrError, FactstrMemoryStore, FactstrPostgresStore, FactstrSqliteStore }'

describe('the packed package in an empty project', () => {
  test('has no source and no binary of its own', () => {
    const installed = join(project, 'node_modules', '@factstr', 'factstr-node')
    expect(readdirSync(installed).sort()).toEqual(
      expect.arrayContaining(['index.d.ts', 'index.js', 'lib', 'native.js', 'package.json'])
    )
    expect(readdirSync(installed, { recursive: true }).join()).not.toMatch(/\.rs|\.node\b|__test__/)
    const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
    expect(dependencies ?? {}).toEqual({})
  })

  test('has what its documents link to', () => {
    const installed = join(project, 'node_modules', '@factstr', 'factstr-node')
    const documents = readdirSync(installed, { recursive: true }).filter((name) =>
      name.endsWith('.md')
    )
    expect(documents).toContain('README.md')
    const dead = documents.flatMap((name) => {
      const links = readFileSync(join(installed, name), 'utf8').matchAll(/\]\(([^)#\s]+)[^)]*\)/g)
      const relative = [...links].map(([, link]) => link).filter((link) => !link.includes('://'))
      return relative
        .filter((link) => !existsSync(join(installed, dirname(name), link)))
        .map((link) => `${name}: ${link}`)
    })
    expect(dead).toEqual([])
  })

  test('works with import', () => {
    rmSync(join(project, 'data'), { recursive: true, force: true })
    writeFileSync(join(project, 'main.mjs'), `import ${names} from '@factstr/factstr-node'${story}`)
    expect(run(process.execPath, ['main.mjs'], project)).toBe('1n 1 true\n1n 1 true\n')
  })

  test('works with require', () => {
    rmSync(join(project, 'data'), { recursive: true, force: true })
    writeFileSync(
      join(project, 'main.cjs'),
      `const ${names} = require('@factstr/factstr-node')${story}`
    )
    expect(run(process.execPath, ['main.cjs'], project)).toBe('1n 1 true\n1n 1 true\n')
  })

  test('has types for both', () => {
    const use = `
const store: EventStore<NewEvent<'a', { n: number }>> = new FactstrMemoryStore()
export async function first(): Promise<number | undefined> {
  const found = await store.query({ filters: [{ event_types: ['a'] }] })
  return found.event_records[0]?.payload.n
}
`
    const types =
      "import { FactstrMemoryStore, type EventStore, type NewEvent } from '@factstr/factstr-node'"
    for (const extension of ['mts', 'cts'])
      writeFileSync(join(project, `use.${extension}`), types + use)
    const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
    const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022']
    run(process.execPath, [tsc, ...options, 'use.mts', 'use.cts'], project)
  })
})
