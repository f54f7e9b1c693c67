'use strict'

// The event loop's time, shared by all streams: handlers run for a moment, then everything else of
// the process gets its turn, then the next stream that waits.

const { inTurn, now } = require('./turns.js')

/** In milliseconds. */
const SHARE = 2

let began = 0
const waiting = []

/** Called where the event loop gives control to streams. */
function beginTurn() {
  began = now()
}

function turnIsOver() {
  return now() - began > SHARE
}

/**
 * Resolves when the caller's next turn comes.
 *
 * @param alive whether the caller keeps the process alive
 */
function nextTurn(alive) {
  return new Promise((resolve) => {
    if (waiting.push({ resolve, alive }) === 1) inTurn(resume, alive)
  })
}

/** One stream in a turn: what it does begins when this has returned. */
function resume() {
  beginTurn()
  const { resolve } = waiting.shift()
  if (waiting.length > 0) {
    inTurn(
      resume,
      waiting.some(({ alive }) => alive)
    )
  }
  resolve()
}

module.exports = { beginTurn, nextTurn, turnIsOver }
