'use strict'

const { Failure } = require('./error.js')

/** Values per record beside the payloads: sequence number, time, type. */
const WIDTH = 3

/**
 * Parses a page's text: payloads, what else their rows have, and five values of its own.
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
  if (rows !== at - 1) {
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

/** @param values payloads, `rows` of them, and then what else the rows have */
function recordAt(values, rows, row) {
  const columns = values[rows]
  const at = row * WIDTH
  const time = columns[at + 1]
  const type = columns[at + 2]
  // What an earlier row has is told by that row's number.
  return {
    sequence_number: BigInt(columns[at]),
    occurred_at: typeof time === 'string' ? time : columns[time * WIDTH + 1],
    event_type: typeof type === 'string' ? type : columns[type * WIDTH + 2],
    payload: values[row]
  }
}

function pushRecords(page, records) {
  for (let row = 0; row < page.rows; row++) records.push(recordAt(page.values, page.rows, row))
}

module.exports = { openPage, pushRecords, recordAt }
