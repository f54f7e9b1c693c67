// Real processes that use a store.

import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

import { onTestFinished } from 'vitest'

/** Starts a script of this folder; it is killed when the test is over. Options may stand last. */
export function start(script, ...args) {
  const options = typeof args.at(-1) === 'object' ? args.pop() : {}
  const child = fork(fileURLToPath(new URL(script, import.meta.url)), args, {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    ...options
  })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  return child
}

/** The next message of a process; its end without one is a failure. */
export async function message(child) {
  const controller = new AbortController()
  try {
    return await Promise.race([
      once(child, 'message', controller).then(([value]) => value),
      once(child, 'exit', controller).then(([code, signal]) => {
        throw new Error(`the process ended with ${signal ?? code} before it answered`)
      })
    ])
  } finally {
    controller.abort()
  }
}

export async function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
  const [code] = await once(child, 'exit')
  return code
}

/** Runs a script of this folder to its end. */
export async function run(script, ...args) {
  const program = fileURLToPath(new URL(script, import.meta.url))
  const child = spawn(process.execPath, ['--expose-gc', program, ...args])
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  const [output, errors, [code, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit')
  ])
  return { output: output.trim().split('\n'), errors, code: signal ?? code }
}
