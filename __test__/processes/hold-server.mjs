// Starts a PostgreSQL server, tells its process and folder, and does nothing more.

import { startPostgres } from '../../scripts/postgres/server.mjs'

const { pid, folder } = await startPostgres()
process.send({ pid, folder })
setInterval(() => {}, 1000)
