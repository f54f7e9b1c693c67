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
  const until = performance.now() + TURN
  let waiting = tasks.length
  try {
    do tasks.shift().task()
    while (--waiting > 0 && performance.now() < until)
  } finally {
    if (tasks.length > 0) schedule(tasks.some(({ alive }) => alive))
  }
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

module.exports = { inTurn, isOverdue }
