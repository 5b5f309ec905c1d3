"""Instructions for looking at the demo's pool with other clients."""

import shlex
import ssl

from xscontainer.engine.ssh.hostkeys import parse_pin
from xscontainer.simulator.demo import cloud
from xscontainer.simulator.demo.acts import CONTAINER, NEW
from xscontainer.simulator.demo.guests import CLASSIC, YOURS
from xscontainer.simulator.demo.shell import install_commands
from xscontainer.simulator.world import World
from xscontainer.simulator.xapi import ROOT_PASSWORD
from xscontainer.xapi.trust import fingerprint_of

HELP = """\
To look at this pool yourself:

  Python    pip install XenAPI
            import XenAPI
            session = XenAPI.Session("http://127.0.0.1:{port}")
            session.xenapi.login_with_password("root", "{password}", "1.0", "me")
            session.xenapi.host.call_plugin(session.xenapi.host.get_all()[0], "xscontainer", "stop",
                                            {{"vmuuid": "{uuid}", "container": "{container}"}})
  Node.js   npm install xen-api
            const {{ createClient }} = await import("xen-api")
            const xapi = createClient({{ url: "http://127.0.0.1:{port}",
                                        auth: {{ user: "root", password: "{password}" }} }})
            await xapi.connect()
            const vm = await xapi.call("VM.get_by_uuid", "{uuid}")
            const config = await xapi.call("VM.get_other_config", vm)
            console.log(config.docker_ps)
            const host = (await xapi.call("host.get_all"))[0]
            await xapi.call("host.call_plugin", host, "xscontainer", "start",
                            {{ vmuuid: "{uuid}", container: "{container}" }})
  Xen Orchestra on this machine
            Settings > Servers > Add server: http://127.0.0.1:{port}, user root, password {password}
  A shell with xscontainer's own command and a few of xe's
            export PATH={commands}:"$PATH"
            xscontainer ps --all
            xscontainer create {new}-2 --template "{template}" --network {network} --image {image}
            xscontainer drive show {new}
  The same from any machine, here over HTTPS with a certificate of its own; the password is {password}
            xscontainer --server {server} --user root \\
                --fingerprint {certificate} ps
  The VM {yours}, which nobody has prepared yet
            xscontainer diagnose {yours}
            echo '{secret}' | xscontainer prepare {yours} --user {user} --password-fd 0 \\
                --fingerprint {fingerprint}
            xscontainer ps --vm {yours}
"""
BRIEF = "To look at such a pool yourself, from Python, Node.js, Xen Orchestra or a shell: make demo ARGS=--stay"


def explain(world: World) -> str:
    """Return the instructions for the demo's pool."""
    pool = world.pool
    yours = world.vm(YOURS.name)
    return HELP.format(
        port=pool.coordinator.tcp_port, password=ROOT_PASSWORD, uuid=world.vm(CLASSIC).uuid,
        container=CONTAINER, commands=shlex.quote(install_commands(world)), new=NEW, template=cloud.TEMPLATE,
        image=cloud.IMAGE, network=cloud.NETWORK, yours=yours.name, secret=yours.spec.password,
        server=f"{pool.coordinator.address}:{pool.coordinator.https_port}",
        certificate=fingerprint_of(ssl.PEM_cert_to_DER_cert(pool.coordinator.certificate)),
        user=yours.guest.user, fingerprint=parse_pin(yours.guest.host_key_base64).fingerprint)
