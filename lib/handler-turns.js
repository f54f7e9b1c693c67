'use strict'

// The event loop's time, shared by all streams: handlers run for a moment, then everything else of
// the process gets its turn, then the next stream that waits.

const { inTurn } = require('./turns.js')

/** In milliseconds. */
const SHARE = 2

let began = 0
const waiting = []

/** Called where the event loop gives control to streams. */
function beginTurn() {
  began = performance.now()
}

function turnIsOver() {
  return performance.now() - began > SHARE
}

/** Resolves when the caller's next turn comes. */
function nextTurn() {
  return new Promise((resolve) => {
    if (waiting.push(resolve) === 1) inTurn(resume)
  })
}

/** One stream in a turn: what it does begins when this has returned. */
function resume() {
  beginTurn()
  const resolve = waiting.shift()
  if (waiting.length > 0) inTurn(resume)
  resolve()
}

module.exports = { beginTurn, nextTurn, turnIsOver }
