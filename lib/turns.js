'use strict'

/** Work of one turn of the event loop, in milliseconds; what a task began is finished. */
const TURN = 1

const tasks = []
let scheduled = false

/**
 * Runs a task in a later turn of the event loop. All stores share the turns: immediates alone would
 * all run in one.
 */
function inTurn(task) {
  tasks.push(task)
  if (scheduled) return
  scheduled = true
  setImmediate(run)
}

function run() {
  const until = performance.now() + TURN
  let waiting = tasks.length
  try {
    do tasks.shift()()
    while (--waiting > 0 && performance.now() < until)
  } finally {
    scheduled = tasks.length > 0
    if (scheduled) setImmediate(run)
  }
}

module.exports = { inTurn }
