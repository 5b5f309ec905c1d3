// Follows a pool as Xen Orchestra does and prints what it sees, one JSON document a line.
// usage: node follow_pool.mjs <index of xen-api> <url> <VM uuid> <host uuid> <plugin>
const [library, url, vmUuid, hostUuid, plugin] = process.argv.slice(2)
const { createClient } = await import(library)
const say = what => process.stdout.write(JSON.stringify(what) + '\n')

const xapi = createClient({ url, auth: { user: 'admin', password: 'admin-pw' }, debounce: 1 })
await xapi.connect()
await xapi.objectsFetched
const vm = () => xapi.getObject(vmUuid)
say({ saw: 'fetched', objects: Object.keys(xapi.objects.all).length, name: vm().name_label, pool: xapi.pool.$type })

let last
xapi.objects.on('update', () => {
  const value = vm().other_config.docker_ps
  if (value !== last) {
    last = value
    say({ saw: 'change', value: value ?? null })
  }
})

process.stdin.setEncoding('utf8')
for await (const line of process.stdin) {
  const order = line.trim()
  if (order === 'call') {
    const host = xapi.getObject(hostUuid)
    say({ saw: 'called', value: await xapi.call('host.call_plugin', host.$ref, plugin, 'hello', { a: '1' }) })
    try {
      await xapi.call('host.call_plugin', host.$ref, 'nosuch', 'f', {})
    } catch (error) {
      say({ saw: 'refused', code: error.code, params: error.params })
    }
  } else if (order === 'task') {
    const task = await xapi.call('Async.host.call_plugin', xapi.getObject(hostUuid).$ref, plugin, 'hello', {})
    say({ saw: 'task', result: await xapi.watchTask(task) })
  } else if (order === 'write') {
    await vm().update_other_config('from-node', 'é')
    say({ saw: 'written' })
  } else {
    break
  }
}
await xapi.disconnect()
process.exit(0)
