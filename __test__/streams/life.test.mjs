// How streams live and end with a process.

import { describe, expect, test } from 'vitest'

import { run } from '../processes/processes.mjs'
import { lasting, stores } from '../stores.mjs'

test.each(lasting)('a handler that hangs holds one chunk of a $name log', async ({ place }) => {
  expect(await run('life.mjs', 'stuck', place())).toEqual({
    output: ['flat'],
    errors: '',
    code: 0
  })
})

describe.each(stores)('a process with streams of a $name store', ({ place }) => {
  const runs = (program) => run('life.mjs', program, place())

  test('lives as long as a stream', async () => {
    expect(await runs('alive')).toEqual({
      output: ['delivered', 'unsubscribed'],
      errors: '',
      code: 0
    })
  })

  test('ends when its last stream has been let go', async () => {
    expect(await runs('released')).toEqual({ output: ['delivered'], errors: '', code: 0 })
    expect(await runs('unref')).toEqual({ output: ['registered'], errors: '', code: 0 })
  })

  test('ends although streams that have been let go have a backlog', async () => {
    expect(await runs('backlog')).toEqual({ output: ['ended before'], errors: '', code: 0 })
  })

  test('has that backlog worked off while it lives for another reason', async () => {
    expect(await runs('company')).toEqual({ output: ['handled 2000'], errors: '', code: 0 })
    expect(await runs('beside')).toEqual({ output: ['handled 1000'], errors: '', code: 0 })
  })

  test('loses no operation that is awaited beside that backlog', async () => {
    expect(await runs('operations')).toEqual({ output: ['answered'], errors: '', code: 0 })
  })

  test('may forget its stores and subscriptions', async () => {
    expect(await runs('garbage')).toEqual({ output: ['delivered 6'], errors: '', code: 0 })
  })

  test('may exit in a handler', async () => {
    expect(await runs('exit')).toMatchObject({ errors: '', code: 7 })
  })

  test('ends with an uncaught exception', async () => {
    for (const program of ['uncaught', 'rejection']) {
      const { errors, code } = await runs(program)
      expect(errors).toContain('of the application')
      expect(code).toBe(1)
    }
  })

  test('hears of failures by warnings, never by unhandled rejections', async () => {
    const { output, code } = await runs('handled')
    expect({ output, code }).toEqual({ output: ['StreamHandlerFailed'], code: 0 })
  })

  test('may terminate workers at any time', async () => {
    expect(await runs('workers')).toMatchObject({
      output: ['registered', 'polite 0'],
      errors: '',
      code: 0
    })
  })
})
