// Follows one VM as Xen Orchestra does and prints what it sees, one JSON document a line.
// usage: node orchestra.mjs <index of xen-api> <url> <user> <password> <VM uuid>
// Each line on stdin is [function, {argument: value}] of the plugin, called on the VM's host, or else on the coordinator.
const [library, url, user, password, vmUuid] = process.argv.slice(2)
const { createClient } = await import(library)
const say = what => process.stdout.write(JSON.stringify(what) + '\n')

const xapi = createClient({ url, auth: { user, password }, debounce: 1 })
await xapi.connect()
await xapi.objectsFetched
const vm = () => xapi.getObject(vmUuid)
say({ saw: 'fetched', monitored: vm().other_config['xscontainer-monitor'] })

let last
const look = () => {
  const value = vm().other_config.docker_ps
  if (value !== last) {
    last = value
    say({ saw: 'list', value: value ?? null })
  }
}
xapi.objects.on('update', look)
look()

process.stdin.setEncoding('utf8')
let rest = ''
for await (const piece of process.stdin) {
  const lines = (rest + piece).split('\n')
  rest = lines.pop()
  for (const line of lines) {
    const [fn, args] = JSON.parse(line)
    const host = vm().$resident_on ?? xapi.getObject(xapi.pool.master)
    try {
      say({ saw: 'result', value: await xapi.call('host.call_plugin', host.$ref, 'xscontainer', fn, args) })
    } catch (error) {
      say({ saw: 'failure', code: error.code, params: error.params })
    }
  }
}
await xapi.disconnect()
process.exit(0)
