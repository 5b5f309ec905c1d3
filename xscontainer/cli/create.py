"""``xscontainer create``: create a VM with containers from a template."""

import argparse
import json
import re
from typing import Any, Dict

from xscontainer import keys
from xscontainer.cli import image, lookup, plugin_call
from xscontainer.cli.ui import progress
from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.output import say
from xscontainer.core.target import check
from xscontainer.errors import XapiError
from xscontainer.settings import Settings
from xscontainer.xapi import provision

NOT_LISTED = 3  # exit code
ENDING = 120.0  # s that the plugin function may take to clean up after it is cancelled

_SIZE = re.compile(r"([0-9]{1,12})([KMGT]?)(i?B)?\Z")
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "create",
        description="Clone a template, give the VM a disk, a network and a config drive, start it and wait until its "
                    "containers are listed. If a step fails before the VM has started, everything that was created "
                    "is removed.",
        epilog=f"Exit codes: 0 the containers are listed, {NOT_LISTED} the VM was started but no list is published "
               "yet; the others as for every command.")
    parser.add_argument("name", metavar="NAME", help="name of the new VM")
    parser.add_argument("--template", required=True, metavar="TEMPLATE", help="name or uuid of the template")
    parser.add_argument("--network", required=True, metavar="NETWORK", help="name or uuid of the network")
    parser.add_argument("--sr", metavar="SR", help="name or uuid of the storage repository (default: the pool's)")
    parser.add_argument("--image", metavar="IMAGE",
                        help="system to boot: a file with a raw image, which is uploaded, or the name or uuid of a "
                             "disk, which is copied; not for a template with a disk of its own")
    parser.add_argument("--configuration", metavar="FILE",
                        help="configuration for the config drive, - for standard input (default: the template's)")
    parser.add_argument("--datasource", choices=("configdrive", "nocloud"), default="configdrive",
                        help="data source of the guest's cloud-init (default: configdrive)")
    parser.add_argument("-u", "--user", help="user in the VM whom the configuration lets log in with the pool's key")
    parser.add_argument("--memory", metavar="SIZE", type=_size, help="memory, such as 4G (default: the template's)")
    parser.add_argument("--vcpus", metavar="N", help="number of virtual CPUs (default: the template's)")
    parser.add_argument("--wait", metavar="SECONDS", help="time to wait for the first list (default: 300)")
    parser.set_defaults(run=_run)


def _size(text: str) -> str:
    found = _SIZE.match(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4G")
    return str(int(found.group(1)) * _FACTORS[found.group(2)])


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import create as verb  # here for start-up time, see cli/__init__.py

    check({keys.USERNAME: options.user or ""}, {keys.USERNAME: "-u"}, settings)
    with plugin_call.logged_in(options, settings) as session:
        arguments = {
            "name": options.name, "templateuuid": lookup.template(session, options.template),
            "networkuuid": lookup.uuid(session, "network", options.network, "network"),
            "sruuid": lookup.storage(session, options.sr), "datasource": options.datasource}
        if options.configuration is not None:
            arguments["configuration"] = lookup.configuration(options.configuration)
        more = {"username": options.user, "memory": options.memory, "vcpus": options.vcpus, "wait": options.wait}
        arguments.update({name: value for name, value in more.items() if value is not None})
        # Checked here as well as in the plugin: uploading an image may take a quarter of an hour.
        verb.wished(settings, verb.CREATE.checked(arguments))
        template = session.xenapi.VM.get_by_uuid(arguments["templateuuid"])
        provision.check_bootable(session, template, options.image is not None)
        with image.given(session, settings, options.image, arguments["sruuid"]) as image_uuid:
            if image_uuid:
                arguments["imageuuid"] = image_uuid
            made = json.loads(progress.call(session, settings, verb.CREATE, arguments, ending=ENDING))
    return _print(made)


def _print(made: "Dict[str, Any]") -> int:
    """Print the answer of the function and return the exit code."""
    try:
        print(f"The VM {neutral(str(made['name']))} ({neutral(str(made['vm']))}) was created and started.")
        if made["published"]:
            print("Its containers are listed: xscontainer ps.")
            return 0
        say("xscontainer: No list is published yet. A first start that installs packages may take minutes. "
            "'xscontainer diagnose' says what is missing.")
        return NOT_LISTED
    except KeyError as error:
        raise XapiError(f"The plugin's answer cannot be read: {error} is missing.") from error
