'use strict'
class FactstrSqliteStore {}
module.exports = { FactstrSqliteStore }
