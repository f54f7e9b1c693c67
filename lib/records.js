'use strict'

/** Values per record in a page: sequence number, time, type, payload. */
const WIDTH = 4

/** Parses a page's text: its rows' values, and four of its own at the end. */
function openPage(text) {
  const values = JSON.parse(text)
  const rows = values.length / WIDTH - 1
  const at = rows * WIDTH
  return {
    values,
    rows,
    last: values[at],
    complete: values[at + 1] === 1,
    before: values[at + 2],
    version: values[at + 3]
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

module.exports = { openPage, pushRecords, recordAt }
