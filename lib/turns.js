'use strict'

/** Work of one turn of the event loop, in milliseconds; what a task began is finished. */
const TURN = 1

const tasks = []
/** The turn that is to come. */
let immediate
/** Wakes an event loop that waits for something else. */
let bell

/**
 * Runs a task in a later turn of the event loop. All stores share the turns: immediates alone would
 * all run in one.
 *
 * @param task returns `true` if it is to be called again, which may be in the same turn
 * @param alive whether the process must not end before; otherwise the task runs if the process lives
 *   on for another reason
 */
function inTurn(task, alive = true) {
  tasks.push({ task, alive })
  schedule(alive)
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
  // What comes meanwhile is for a later turn.
  const due = tasks.splice(0)
  inPieces(
    () => {
      const each = due.shift()
      if (each.task() === true) due.push(each)
      return due.length > 0
    },
    () => {
      tasks.unshift(...due)
      if (tasks.length > 0) schedule(tasks.some(({ alive }) => alive))
    }
  )
}

/** Begins a task at once, and goes on with it in later turns if this one has no time for all of it. */
function atOnce(task, alive) {
  let more = false
  inPieces(
    () => {
      more = false
      more = task() === true
      return more
    },
    () => {
      if (more) inTurn(task, alive())
    }
  )
}

/** At most so many pieces come before the first look at the clock. */
const MOST_UNSEEN = 16

/** What a piece takes, in milliseconds: the last ones, or half of what those before them took. */
let pace = 0

/** Pieces of work are under way. */
let inProgress = false
/** What is to be done when they are over, or have to wait for the next turn. */
let endings = []

/**
 * Does pieces of work as long as this turn has time for them. What they set off counts as theirs: whoever gets an
 * answer asks for more, and does so in reactions of promises. So there are breaks for these, and then a look at the
 * clock. After it come as many pieces as there have been, or as fit in.
 *
 * @param piece returns whether there is another one
 */
function inPieces(piece, over) {
  const began = performance.now()
  let done = 0
  const end = () => {
    inProgress = false
    pace = Math.max(pace / 2, (performance.now() - began) / done)
    over()
    const calls = endings
    endings = []
    for (const call of calls) call()
  }
  const goOn = () => {
    const took = performance.now() - began
    if (done > 0 && took >= TURN) return end()
    const most =
      done > 0 ? done * Math.min(1, (TURN - took) / took) : Math.min(MOST_UNSEEN, TURN / 2 / pace)
    let more = false
    try {
      for (let n = 0; n < most; n++) {
        done++
        more = false
        more = piece()
        if (!more) break
      }
    } finally {
      afterReactions(more ? goOn : end)
    }
  }
  inProgress = true
  goOn()
}

const settled = Promise.resolve()

/** Calls a function when all reactions of promises have run that are due, and all that follow from them. */
function afterReactions(call) {
  settled.then(() => process.nextTick(call))
}

/** Calls a function when those who are answered now have asked for more. */
function whenAsked(call) {
  if (inProgress) endings.push(call)
  else queueMicrotask(call)
}

/** When the stores began to work in this turn. */
let began

/**
 * Whether work that is done at once has taken so much of this turn that the event loop should turn
 * before there is more of it: promises alone never let it.
 */
function isOverdue() {
  if (began !== undefined) return performance.now() - began > TURN
  began = performance.now()
  setImmediate(() => {
    began = undefined
  }).unref()
  return false
}

module.exports = { atOnce, inTurn, isOverdue, whenAsked }
