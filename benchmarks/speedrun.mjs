// The course speedrun of the DCB community, first published with the Python library eventsourcing
// (https://eventsourcing.readthedocs.io/en/latest/topics/examples/dcb-enrolment-speedrun.html): 10 courses and
// 10 students are registered, then each student is enrolled on each course, and again with the next ones.
// Each of these 120 operations reads what it depends on, decides, and appends if that has not changed.

import { randomUUID } from 'node:crypto'

const EACH = 10
const CAPACITY = 30
const LIMIT = 30

export const registered = (kind, id) =>
  kind === 'course'
    ? { event_type: 'course-registered', payload: { course_id: id, capacity: CAPACITY } }
    : { event_type: 'student-registered', payload: { student_id: id, limit: LIMIT } }

export const enrolled = (student, course) => ({
  event_type: 'student-enrolled',
  payload: { student_id: student, course_id: course }
})

/** Decides whether `student` can be enrolled on `course`, from the facts about both. */
export function mayEnrol(facts, student, course) {
  let [capacity, limit, places, subscriptions] = [undefined, undefined, 0, 0]
  for (const { event_type: type, payload } of facts) {
    if (type === 'course-registered') capacity = payload.capacity
    else if (type === 'student-registered') limit = payload.limit
    else {
      if (payload.course_id === course) places++
      if (payload.student_id === student) subscriptions++
      if (payload.course_id === course && payload.student_id === student) return false
    }
  }
  if (capacity === undefined || limit === undefined) return false
  return places < capacity && subscriptions < limit
}

const about = (kind, id, ...more) => ({
  event_types: [`${kind}-registered`, ...more],
  payload_predicates: [{ [`${kind}_id`]: id }]
})

/** Both operations on a store of ours. */
export function courses(store) {
  const append = async (fact, query, version) => {
    if ((await store.appendIf([fact], query, version)).conflict !== null) {
      throw new Error('the only caller has met a conflict')
    }
  }
  return {
    async register(kind, id) {
      const query = { filters: [about(kind, id)] }
      const { event_records: facts, current_context_version: version } = await store.query(query)
      if (facts.length > 0) throw new Error(`${kind} ${id} exists`)
      await append(registered(kind, id), query, version)
    },
    async enrol(student, course) {
      const query = {
        filters: [
          about('student', student, 'student-enrolled'),
          about('course', course, 'student-enrolled')
        ]
      }
      const { event_records: facts, current_context_version: version } = await store.query(query)
      if (!mayEnrol(facts, student, course)) throw new Error(`${student} must not take ${course}`)
      await append(enrolled(student, course), query, version)
    }
  }
}

/** The operations of the run, one after the other, without an end. */
export async function* operations({ register, enrol }) {
  for (;;) {
    const [students, offered] = [ids(), ids()]
    for (const id of offered) yield await register('course', id)
    for (const id of students) yield await register('student', id)
    for (const student of students) for (const course of offered) yield await enrol(student, course)
  }
}

const ids = () => Array.from({ length: EACH }, () => randomUUID())
