// What only a store in a file has: paths, options, other files, other handles.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { FactstrError, FactstrSqliteStore } from '../index.js'
import { closing, collect, event, having, numbersOf, temporaryFolder } from './stores.mjs'

const one = [event('a', { x: 1 })]
const rejection = (promise) =>
  promise.then(
    () => expect.fail('it resolved'),
    (error) => error
  )

/** Leaves a store of three events behind. */
async function filled(path) {
  const store = await FactstrSqliteStore.open(path)
  await store.append([...one, ...one, ...one])
  await store.close()
  return path
}

test('the constructor touches nothing, the first operation opens', async () => {
  const path = join(temporaryFolder(), 'new', 'folders', 'store.db')
  const store = closing(new FactstrSqliteStore(path))
  expect(existsSync(path)).toBe(false)
  expect(await store.headSequenceNumber()).toBe(null)
  expect(existsSync(path)).toBe(true)
})

test('a store that was never used closes without a file', async () => {
  const path = join(temporaryFolder(), 'store.db')
  await new FactstrSqliteStore(path).close()
  expect(existsSync(path)).toBe(false)
})

test('facts survive', async () => {
  const path = await filled(join(temporaryFolder(), 'store with spaces ü.db'))
  const store = closing(await FactstrSqliteStore.open(path))
  expect(numbersOf(await collect(store.read()))).toEqual([1, 2, 3])
  const { first_sequence_number: first } = await store.append(one)
  expect(first).toBe(4n)
})

test('arguments are checked before the disk is touched', async () => {
  const folder = temporaryFolder()
  const path = join(folder, 'store.db')
  for (const wrong of [undefined, null, '', 7, {}, 'a\0b']) {
    expect((await rejection(FactstrSqliteStore.open(wrong))).code).toBe('InvalidOptions')
    const store = new FactstrSqliteStore(wrong)
    expect((await rejection(store.headSequenceNumber())).code).toBe('InvalidOptions')
  }
  for (const wrong of [
    7,
    'full',
    { durability: 'off' },
    { durability: 1 },
    { busyTimeoutMs: -1 },
    { busyTimeoutMs: 1.5 },
    { busyTimeoutMs: '5' },
    { busyTimeoutMs: Number.NaN },
    { readOnly: 'yes' },
    { readonly: true }
  ]) {
    const error = await rejection(FactstrSqliteStore.open(path, wrong))
    expect(error).toBeInstanceOf(FactstrError)
    expect(error.code).toBe('InvalidOptions')
  }
  expect(existsSync(path)).toBe(false)
  for (const fine of [undefined, null, {}, { durability: null, busyTimeoutMs: 0 }]) {
    await (await FactstrSqliteStore.open(path, fine)).close()
  }
})

test('a failed open is tried again by the next operation', async () => {
  const folder = temporaryFolder()
  const path = join(folder, 'store.db')
  mkdirSync(path)
  const store = closing(new FactstrSqliteStore(path))
  const error = await rejection(store.append(one))
  expect(error.code).toBe('InvalidOptions')
  expect(error.message).toContain(path)
  rmdirSync(path)
  expect((await store.append(one)).first_sequence_number).toBe(1n)
})

test('what is no store is refused and left as it was', async () => {
  const folder = temporaryFolder()
  const healthy = readFileSync(await filled(join(folder, 'healthy.db')))
  const foreign = 'StoreFormatUnsupported'
  const corrupt = 'BackendFailure'
  const diary = 'this is a diary, and much too dear to be written over\n'
  const wrong = [
    ['text', foreign, Buffer.from(diary.repeat(40))],
    ['noise', foreign, Buffer.from(Array.from({ length: 8192 }, (_, n) => (n * 131 + 7) % 256))],
    ['truncated', corrupt, healthy.subarray(0, 3000)],
    [
      'damaged',
      corrupt,
      Buffer.concat([healthy.subarray(0, 100), Buffer.alloc(healthy.length - 100, 0xa5)])
    ]
  ]
  for (const [name, code, content] of wrong) {
    const path = join(folder, name)
    writeFileSync(path, content)
    for (const options of [{}, { readOnly: true }]) {
      const error = await rejection(FactstrSqliteStore.open(path, options))
      expect([name, error.code]).toEqual([name, code])
      expect(error.message).toContain(path)
    }
    expect(readFileSync(path).equals(content)).toBe(true)
  }
})

test('a newer format is refused and left as it was', async () => {
  const path = await filled(join(temporaryFolder(), 'store.db'))
  // The header's user_version, big-endian at offset 60 (https://www.sqlite.org/fileformat.html).
  const content = readFileSync(path)
  content.writeInt32BE(1000, 60)
  writeFileSync(path, content)
  const error = await rejection(FactstrSqliteStore.open(path))
  expect(error.code).toBe('StoreFormatUnsupported')
  expect(error.message).toContain(path)
  expect(readFileSync(path).equals(content)).toBe(true)
})

test('readOnly reads, and neither writes nor creates', async () => {
  const folder = temporaryFolder()
  const missing = join(folder, 'missing.db')
  const error = await rejection(FactstrSqliteStore.open(missing, { readOnly: true }))
  expect(error.code).toBe('InvalidOptions')
  expect(existsSync(missing)).toBe(false)

  const path = await filled(join(folder, 'store.db'))
  const writer = closing(await FactstrSqliteStore.open(path))
  const reader = closing(await FactstrSqliteStore.open(path, { readOnly: true }))
  expect(numbersOf(await collect(reader.read()))).toEqual([1, 2, 3])
  expect((await rejection(reader.append(one))).code).toBe('InvalidOptions')
  expect((await rejection(reader.appendIf(one, {}, 3n))).code).toBe('InvalidOptions')
  await writer.append(one)
  expect(await reader.headSequenceNumber()).toBe(4n)
  const { event_records: found } = await reader.query(having({ x: 1 }))
  expect(numbersOf(found)).toEqual([1, 2, 3, 4])
})

test('both durabilities store the same', async () => {
  for (const durability of ['full', 'normal']) {
    const path = join(temporaryFolder(), 'store.db')
    const store = await FactstrSqliteStore.open(path, { durability })
    await Promise.all(Array.from({ length: 100 }, () => store.append(one)))
    await store.close()
    const again = closing(await FactstrSqliteStore.open(path))
    expect(await again.headSequenceNumber()).toBe(100n)
  }
})

test('a damaged payload fails the read that meets it, and nothing else', async () => {
  for (const damage of ['{"mark":"abc"', '1,9,"x","abc"']) {
    const path = join(temporaryFolder(), 'store.db')
    const before = await FactstrSqliteStore.open(path)
    await before.append([event('a', { mark: 'abc' })])
    await before.append([event('b', { fine: true })])
    await before.close()
    const file = readFileSync(path)
    const at = file.indexOf('{"mark":"abc"}')
    file.write(damage.padEnd(14), at, 'latin1')
    writeFileSync(path, file)

    const store = closing(await FactstrSqliteStore.open(path))
    const [query, read, append, other] = await Promise.all([
      rejection(store.query()),
      rejection(collect(store.read())),
      store.append(one),
      store.query(having({ fine: true }))
    ])
    expect(query).toMatchObject({ name: 'FactstrError', code: 'BackendFailure' })
    expect(read).toMatchObject({ name: 'FactstrError', code: 'BackendFailure' })
    expect(append.last_sequence_number).toBe(3n)
    expect(numbersOf(other.event_records)).toEqual([2])
  }
})

test('path and options are those of the constructor', async () => {
  const folder = temporaryFolder()
  const before = process.cwd()
  const options = { readOnly: false }
  let store
  try {
    process.chdir(folder)
    store = closing(new FactstrSqliteStore('here.db', options))
    options.readOnly = true
    options.durability = 'no such'
  } finally {
    process.chdir(before)
  }
  await store.append(one)
  expect(existsSync(join(folder, 'here.db'))).toBe(true)
})

test('options that throw and paths that are no text are refused', async () => {
  const wrong = [
    ['a\ud800.db', {}],
    ['a\0.db', {}],
    [
      join(temporaryFolder(), 'a.db'),
      {
        get durability() {
          throw new Error('mine')
        }
      }
    ]
  ]
  for (const [path, options] of wrong) {
    const error = await rejection(FactstrSqliteStore.open(path, options))
    expect(error).toMatchObject({ name: 'FactstrError', code: 'InvalidOptions' })
  }
})
