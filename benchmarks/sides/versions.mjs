import { readFileSync } from 'node:fs'

/** The version of a package that is compared with, as it is installed in `folder` of benchmarks/. */
export function versionOf(name, folder = '.') {
  const url = new URL(`../${folder}/node_modules/${name}/package.json`, import.meta.url)
  try {
    return JSON.parse(readFileSync(url, 'utf8')).version
  } catch {
    return 'not installed'
  }
}
