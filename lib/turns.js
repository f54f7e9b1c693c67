'use strict'

// As they are now: whoever fakes timers in a test of an application does not mean those of its store.
const { queueMicrotask, setImmediate } = globalThis
const { nextTick } = process
const now = performance.now.bind(performance)

/** Work of one turn of the event loop, in milliseconds; what a task began is finished. */
const TURN = 1

let tasks = []
/** The last turn that had tasks had no time for all of them. */
let hasLeft = false
/** The turn that is to come. */
let immediate
/** Wakes an event loop that waits for something else. */
let bell

/**
 * Runs a task in a later turn of the event loop. All stores share the turns: immediates alone would
 * all run in one.
 *
 * @param task does a piece of work; returns what the next piece is expected to cost if there is one, which may come in
 *   the same turn
 * @param alive whether the process must not end before; otherwise the task runs if the process lives
 *   on for another reason
 * @param cost what the first piece is expected to cost
 */
function inTurn(task, alive = true, cost = UNKNOWN) {
  tasks.push({ task, alive, cost })
  schedule(alive)
}

/** What an answer costs of which nothing is known, in milliseconds: two come before the first look at the clock. */
const UNKNOWN = TURN / 4

/**
 * About what it costs to pass on an answer, with all that the caller does then, in milliseconds: callers go on with more
 * of the same.
 *
 * @param characters of what was asked, or of the answer
 */
function costOf(characters) {
  return 0.005 + characters * 13e-6
}

function schedule(alive) {
  immediate ??= setImmediate(run).unref()
  if (alive) immediate.ref()
  else if (!immediate.hasRef()) ring()
}

/** An event loop that is kept alive by other things only sleeps over an immediate that does not. */
function ring() {
  bell ??= newBell()
  bell.postMessage(undefined)
}

function newBell() {
  const { port1, port2 } = new MessageChannel()
  // Being woken is all: the immediates come next.
  port2.onmessage = () => {}
  port2.unref()
  return port1
}

function run() {
  immediate = undefined
  // The event loop has turned.
  workingSince = undefined
  // What comes meanwhile is for a later turn.
  const due = tasks
  tasks = []
  let at = 0
  inPieces(
    () => {
      const each = due[at++]
      each.cost = each.task()
      // Its other pieces come first: they would wait for all the others after each.
      if (each.cost !== undefined) at--
      return due[at]?.cost
    },
    () => due.length - at,
    () => {
      hasLeft = at < due.length
      if (hasLeft) tasks = due.slice(at).concat(tasks)
      if (tasks.length > 0) schedule(tasks.some(({ alive }) => alive))
    }
  )
}

/**
 * Begins a task, as for `inTurn`, at once, and goes on with it in later turns if this one has no time for all of it.
 *
 * @param left tells how many pieces there are
 * @param isAlive tells whether the process must not end before
 */
function atOnce(task, left, isAlive) {
  let next
  inPieces(
    () => {
      next = undefined
      next = task()
      return next
    },
    left,
    () => {
      if (next !== undefined) inTurn(task, isAlive(), next)
    }
  )
}

/** Pieces of work are under way. */
let inProgress = false
/** What is to be done when they are over, or have to wait for the next turn. */
let endings = []

/**
 * Does pieces of work as long as this turn has time for them. What they set off counts as theirs: whoever gets an
 * answer asks for more, and does so in reactions of promises. So there are breaks for these, and then a look at the
 * clock. Half a turn's worth comes before the first one, and then as much again, or as there is time for. A little
 * rest is done all the same: what comes together is committed together, and small groups cost more.
 *
 * @param piece returns the expected cost of the next one, or `undefined`
 * @param left tells how many there are
 */
function inPieces(piece, left, over) {
  const began = now()
  let done = 0
  const end = () => {
    inProgress = false
    const calls = endings
    endings = []
    try {
      over()
    } finally {
      for (const call of calls) call()
    }
  }
  const goOn = () => {
    const took = now() - began
    const average = done > 0 ? took / done : undefined
    const rest = done > 0 ? left() * average : 0
    const time = rest <= TURN ? 2 * TURN : TURN
    if (done > 0 && took >= time) return end()
    let room = done > 0 ? Math.min(took, time - took) : TURN / 2
    let next
    try {
      do {
        done++
        next = undefined
        next = piece()
        room -= average ?? next
      } while (next !== undefined && room > 0)
    } finally {
      afterReactions(next === undefined ? end : goOn)
    }
  }
  inProgress = true
  goOn()
}

const settled = Promise.resolve()

/** Calls a function when all reactions of promises have run that are due, and all that follow from them. */
function afterReactions(call) {
  settled.then(() => nextTick(call))
}

/** Calls a function when those who are answered now have asked for more. */
function whenAsked(call) {
  if (inProgress) endings.push(call)
  else queueMicrotask(call)
}

/** When the stores began to work at once in this turn. */
let workingSince

/**
 * Whether work that is done at once has taken so much of this turn that the event loop should turn
 * before there is more of it: promises alone never let it.
 */
function isOverdue() {
  if (workingSince !== undefined) return now() - workingSince > TURN
  workingSince = now()
  setImmediate(() => {
    workingSince = undefined
  }).unref()
  return false
}

/** Whether some have to wait for more than one turn: whoever asks now should not be answered before them. */
function othersWait() {
  return hasLeft
}

module.exports = { UNKNOWN, atOnce, costOf, inTurn, isOverdue, now, othersWait, whenAsked }
