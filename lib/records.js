'use strict'

const { Failure } = require('./error.js')

/** Values per record in a page: sequence number, time, type, payload. */
const WIDTH = 4

/**
 * Parses a page's text: its rows' values, and five of its own at the end.
 *
 * @returns the page, or a `Failure` if a payload is no JSON value
 */
function openPage(text) {
  let values
  try {
    values = JSON.parse(text)
  } catch (error) {
    return new Failure('BackendFailure', `a stored payload is damaged: ${error.message}`)
  }
  const at = values.length - 5
  const rows = values[at]
  if (rows * WIDTH !== at) {
    return new Failure('BackendFailure', 'a stored payload is damaged: it is no JSON value')
  }
  return {
    values,
    rows,
    last: values[at + 1],
    complete: values[at + 2] === 1,
    before: values[at + 3],
    version: values[at + 4]
  }
}

function recordAt(values, row) {
  const at = row * WIDTH
  return {
    sequence_number: BigInt(values[at]),
    occurred_at: values[at + 1],
    event_type: values[at + 2],
    payload: values[at + 3]
  }
}

function pushRecords(page, records) {
  for (let row = 0; row < page.rows; row++) records.push(recordAt(page.values, row))
}

module.exports = { WIDTH, openPage, pushRecords, recordAt }
