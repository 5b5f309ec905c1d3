// What tree-sitter's grammar makes of the PowerShell script on stdin, as JSON on stdout:
// errors (where the grammar does not know on), command_name (called), function_name (defined).

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Language, Parser } from 'web-tree-sitter'

await Parser.init()
const parser = new Parser()
const grammar = createRequire(import.meta.url).resolve('tree-sitter-powershell/tree-sitter-powershell.wasm')
parser.setLanguage(await Language.load(readFileSync(grammar)))
const root = parser.parse(readFileSync(0, 'utf8')).rootNode

const found = { errors: [], command_name: [], function_name: [] }
function look(node) {
  if (node.isError || node.isMissing) found.errors.push(`line ${node.startPosition.row + 1}: ${node.text.slice(0, 80)}`)
  if (found[node.type]) found[node.type].push(node.text)
  for (const child of node.children) look(child)
}
look(root)
process.stdout.write(JSON.stringify(found))
