'use strict'

const { FactstrMemoryStore } = require('./lib/memory-store.js')
const { FactstrPostgresStore } = require('./lib/postgres-store.js')
const { FactstrSqliteStore } = require('./lib/sqlite-store.js')
const { FactstrError } = require('./lib/error.js')

module.exports = { FactstrError, FactstrMemoryStore, FactstrPostgresStore, FactstrSqliteStore }
