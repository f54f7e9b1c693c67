import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    globalSetup: ['__test__/global-setup.mjs'],
    include: ['__test__/**/*.test.mjs'],
    // Each file in a process of its own, as an application would load the addon.
    pool: 'forks',
    // A hang is a failure; slow machines are not.
    testTimeout: 120_000,
    hookTimeout: 120_000
  }
})
