'use strict'

/** Values per record in a page: sequence number, time, type, payload. */
const WIDTH = 4

/** Parses a page's text and counts its rows, once. */
function openPage(page) {
  page.values = JSON.parse(page.text)
  page.rows = page.values.length / WIDTH
  page.text = ''
  return page
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
