'use strict'

// Reads documents as Xen Orchestra does: "KIND BYTES\n" and the document on stdin, "BYTES\n" and JSON on stdout.

// The package to read with is the first argument.
const { XMLParser } = require(process.argv[2])

const parser = new XMLParser({
  attributeNamePrefix: '',
  ignoreAttributes: false,
  ignoreDeclaration: true,
  parseAttributeValue: false,
  parseTagValue: false,
})

function read(kind, text) {
  try {
    // A plugin's result: four characters are cut off without looking at them.
    return { value: parser.parse(kind.startsWith('get_') ? text.slice(4) : text) }
  } catch (error) {
    return { error: error.message }
  }
}

function answer(value) {
  const body = Buffer.from(JSON.stringify(value), 'utf8')
  process.stdout.write(`${body.length}\n`)
  process.stdout.write(body)
}

let pending = Buffer.alloc(0)

function takeDocument() {
  const end = pending.indexOf(10)
  if (end === -1) return false
  const [kind, length] = pending.toString('latin1', 0, end).split(' ')
  const stop = end + 1 + Number(length)
  if (pending.length < stop) return false
  const text = pending.toString('utf8', end + 1, stop)
  pending = pending.subarray(stop)
  answer(read(kind, text))
  return true
}

process.stdin.on('data', chunk => {
  pending = Buffer.concat([pending, chunk])
  while (takeDocument());
})
