// Follows a VM as Xen Orchestra does, with its own pauses. Prints how often its list changed and how often it was absent.
// usage: node see_gaps.mjs <index of xen-api> <url> <VM uuid>
const [library, url, vmUuid] = process.argv.slice(2)
const { createClient } = await import(library)

const xapi = createClient({ url, auth: { user: 'admin', password: 'admin-pw' } })
await xapi.connect()
await xapi.objectsFetched
let last = xapi.getObject(vmUuid).other_config.docker_ps
let changes = 0
let absent = 0
xapi.objects.on('update', () => {
  const value = xapi.getObject(vmUuid).other_config.docker_ps
  if (value === undefined && last !== undefined) {
    absent += 1
  } else if (value !== last) {
    changes += 1
  }
  last = value
})
process.stdout.write(JSON.stringify({ saw: 'fetched' }) + '\n')

process.stdin.setEncoding('utf8')
for await (const line of process.stdin) {
  process.stdout.write(JSON.stringify({ changes, absent, last: (last ?? '').slice(0, 40) }) + '\n')
}
await xapi.disconnect()
process.exit(0)
