// Makes a VM from the template CoreOS as Xen Orchestra does, and prints what came of it as one JSON document.
// usage: node orchestra.mjs <index of xen-api> <url> <user> <password>; on stdin: {template, sr, network, configuration}
const [library, url, user, password] = process.argv.slice(2)
const { createClient } = await import(library)

let text = ''
process.stdin.setEncoding('utf8')
for await (const piece of process.stdin) text += piece
const given = JSON.parse(text)

const xapi = createClient({ url, auth: { user, password }, debounce: 1 })
await xapi.connect()
await xapi.objectsFetched
const plugin = (host, fn, args) => xapi.call('host.call_plugin', host.$ref, 'xscontainer', fn, args)
// Four characters are cut off without looking.
const cut = result => result.slice(4)
try {
  const template = xapi.getObject(given.template)
  const host = xapi.getObject(xapi.pool.master)
  const fallback = cut(await plugin(host, 'get_config_drive_default', { templateuuid: template.uuid }))

  const vmRef = await xapi.call('VM.clone', template.$ref, 'from XO')
  await xapi.call('VM.set_is_a_template', vmRef, false)
  const vm = await xapi.barrier(vmRef)
  await xapi.call('VBD.create', {
    VM: vmRef, VDI: await xapi.call('VDI.clone', xapi.getObject(given.image).$ref, {}), userdevice: '0', bootable: true,
    mode: 'RW', type: 'Disk', unpluggable: false, empty: false, other_config: {}, qos_algorithm_type: '',
    qos_algorithm_params: {},
  })
  await xapi.call('VIF.create', {
    VM: vmRef, network: xapi.getObject(given.network).$ref, device: '0', MAC: '', MTU: '1500', other_config: {},
    qos_algorithm_type: '', qos_algorithm_params: {},
  })
  const sr = xapi.getObject(given.sr)
  const vdiUuid = cut(
    await plugin(host, 'create_config_drive', {
      vmuuid: vm.uuid, sruuid: sr.uuid, configuration: given.configuration ?? fallback,
    })
  )
  const vdiRef = await xapi.call('VDI.get_by_uuid', vdiUuid)
  await plugin(host, 'register', { vmuuid: vm.uuid })
  await xapi.call('VM.start', vmRef, false, false)
  const back = cut(await plugin(host, 'get_config_drive_configuration', { vdiuuid: vdiUuid }))
  process.stdout.write(JSON.stringify({ vm: vm.uuid, vdi: vdiUuid, vdiRef, fallback, back }))
} finally {
  await xapi.disconnect()
}
process.exit(0)
