import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { contains } from '../model/matching.mjs'
import { event, having, numbersOf, stores } from '../stores.mjs'

const many = (element) => Array.from({ length: 3_001 }, (_, n) => element(n))
const members = (count) => Object.fromEntries(many((n) => [`m${n}`, n]).slice(0, count))

/** Predicate, payload, whether it matches. */
const cases = [
  [1, 1, true],
  [1, 1.0, true],
  [0, -0, true],
  [1, '1', false],
  [0, false, false],
  [1, true, false],
  [null, null, true],
  [null, 0, false],
  [null, '', false],
  [{ a: null }, {}, false],
  [{ a: null }, { a: null }, true],
  ['a', 'a', true],
  ['a', 'A', false],
  ['\u00e9', 'e\u0301', false],
  [1e21, 1e21, true],
  [9007199254740992, 9007199254740994, false],
  [{}, {}, true],
  [{}, { a: 1 }, true],
  [{}, [], false],
  [{}, null, false],
  [{}, 'a', false],
  [[], [], true],
  [[1, 1.0, 1], [1], true],
  [['a', 'a'], ['a'], true],
  [[null, false], [false, null, true], true],
  [[null, true], [false, null], false],
  [[1, '1'], [1], false],
  [[1, -1, 0.5, 1e300], [1e300, 0.5, -1, 1], true],
  [['b', { a: 1 }, ['c']], [['c', 'd'], { a: 1, b: 2 }, 'b'], true],
  [[{ a: 1 }, { b: 2 }], [{ a: 1 }, { b: 3 }], false],
  [many((n) => n), many((n) => 3_000 - n), true],
  [many((n) => n), many((n) => n + 1), false],
  [many((n) => `s${n}`), many((n) => `s${3_000 - n}`), true],
  [members(3_000), { ...members(3_000), more: 1 }, true],
  [members(3_001), members(3_000), false],
  [[], [1], true],
  [[], {}, false],
  [[], 'a', false],
  [{ a: 1 }, { a: 1, b: 2 }, true],
  [{ a: 1, b: 2 }, { a: 1 }, false],
  [{ a: { b: 1 } }, { a: { b: 1, c: 2 } }, true],
  [{ a: { b: 1 } }, { a: [{ b: 1 }] }, false],
  [{ a: {} }, { a: {} }, true],
  [{ a: {} }, { a: 1 }, false],
  [{ a: [] }, { a: [1] }, true],
  [{ a: [] }, { a: {} }, false],
  [[1], 1, false],
  [1, [1], false],
  [{ a: 1 }, { a: [1] }, false],
  [[1, 2], [2, 3, 1], true],
  [[1, 1], [1], true],
  [[1, 4], [2, 3, 1], false],
  [[{ a: 1, b: 2 }], [{ a: 1 }, { b: 2 }], false],
  [[{ a: 1 }, { b: 2 }], [{ a: 1, b: 2 }], true],
  [[[1]], [1], false],
  [[[1]], [[2], [1, 2]], true],
  [[[1, 2]], [[1], [2]], false],
  [[{}], [1], false],
  [[{}], [1, {}], true],
  [{ toString: 1 }, {}, false],
  [{ constructor: {} }, {}, false],
  [{ '$serde_json::private::RawValue': '{}' }, {}, false],
  [{ '$serde_json::private::RawValue': '{}' }, { '$serde_json::private::RawValue': '{}' }, true],
  [{ '$serde_json::private::RawValue': 'no JSON' }, {}, false],
  [{ '$serde_json::private::Number': '1' }, 1, false]
]

describe.each(stores)('matching in the $name store', ({ create }) => {
  test('a predicate matches by recursive subset', async () => {
    const store = create()
    await store.append(cases.map(([, payload], index) => event(`case-${index}`, payload)))
    for (const [index, [predicate, payload, expected]] of cases.entries()) {
      const { event_records: records } = await store.query(having(predicate, `case-${index}`))
      const shown = `${JSON.stringify(predicate)} in ${JSON.stringify(payload)}`
      expect([shown, records.length === 1]).toEqual([shown, expected])
      expect([shown, contains(payload, predicate)]).toEqual([shown, expected])
    }
  })

  test('it agrees with a naive matcher', async () => {
    const store = create()
    const scalar = fc.constantFrom(null, true, false, 0, 1, 1.5, '', 'a', '1')
    const { value: json } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 3, withCrossShrink: true },
        scalar,
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom('a', 'b'), tie('value'), { maxKeys: 2 })
      )
    }))
    const payloads = []
    await fc.assert(
      fc.asyncProperty(json, json, async (payload, predicate) => {
        payloads.push(payload)
        await store.append([event('a', payload)])
        const { event_records: records } = await store.query(having(predicate))
        const expected = payloads.flatMap((each, i) => (contains(each, predicate) ? [i + 1] : []))
        expect(numbersOf(records)).toEqual(expected)
      }),
      { numRuns: 300 }
    )
  })

  test('filters are OR-ed, their parts are AND-ed, an empty list matches nothing', async () => {
    const store = create()
    await store.append([
      event('a', { x: 1 }),
      event('a', { x: 2 }),
      event('b', { x: 1 }),
      event('c', 3)
    ])
    const found = async (filters) => numbersOf((await store.query({ filters })).event_records)
    const types = (...event_types) => ({ event_types })
    const predicates = (...payload_predicates) => ({ payload_predicates })
    expect(await found(undefined)).toEqual([1, 2, 3, 4])
    expect(await found(null)).toEqual([1, 2, 3, 4])
    expect(await found([])).toEqual([1, 2, 3, 4])
    expect(await found([{}])).toEqual([1, 2, 3, 4])
    expect(await found([{ event_types: null, payload_predicates: null }])).toEqual([1, 2, 3, 4])
    expect(await found([{ event_types: undefined }])).toEqual([1, 2, 3, 4])
    expect(await found([types('a')])).toEqual([1, 2])
    expect(await found([types('a', 'c')])).toEqual([1, 2, 4])
    expect(await found([types()])).toEqual([])
    expect(await found([predicates()])).toEqual([])
    expect(await found([{ ...types('a'), ...predicates() }])).toEqual([])
    expect(await found([predicates({ x: 1 })])).toEqual([1, 3])
    expect(await found([predicates({ x: 1 }, 3)])).toEqual([1, 3, 4])
    expect(await found([{ ...types('a', 'c'), ...predicates({ x: 1 }, 3) }])).toEqual([1, 4])
    expect(await found([{ ...types('b') }, { ...predicates({ x: 2 }) }])).toEqual([2, 3])
    expect(await found([types(), types('b')])).toEqual([3])
    expect(await found([types('d')])).toEqual([])
  })

  test('a query asks for what it shows, each value read once', async () => {
    const store = create()
    await store.append([
      event('a', { x: 1 }),
      event('b', { x: 2 }),
      event('b', { __proto__: null, x: 3 })
    ])
    class Filter {
      get event_types() {
        return ['a']
      }
    }
    const found = async (...filters) => numbersOf((await store.query({ filters })).event_records)
    expect(await found(new Filter())).toEqual([1])
    const types = Object.assign(['a'], { toJSON: () => null })
    expect(await found({ event_types: types })).toEqual([1])
    let reads = 0
    const moody = {
      get x() {
        return reads++ === 0 ? 2 : undefined
      }
    }
    expect(await found({ payload_predicates: [moody] })).toEqual([2])
    const filters = Object.assign([{ event_types: ['a'] }], { toJSON: () => null })
    expect(numbersOf((await store.query({ filters })).event_records)).toEqual([1])
    expect(await found({ payload_predicates: [JSON.parse('{"__proto__":{}}')] })).toEqual([])
    expect(await found({ payload_predicates: [{ x: Object(3) }] })).toEqual([3])
    expect(await found({ payload_predicates: [{ x: { toJSON: () => 2 } }] })).toEqual([2])
  })
})
