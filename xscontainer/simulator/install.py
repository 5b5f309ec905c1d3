"""Puts the plugin of this source tree into a simulated host's plugin directory."""

import os
import shlex
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLUGIN = os.path.join(ROOT, "xapi-plugins", "xscontainer")


def install_plugin(plugin_dir: str, conf_path: str, python: str = sys.executable, name: str = "xscontainer") -> str:
    """Write an executable that runs the plugin as XAPI would, with what a simulation needs to differ in.

    XAPI passes a plugin no environment but PATH, and dom0 has one Python and one settings file. Here
    every host has settings of its own, and the interpreter is the caller's.

    :param conf_path: settings file of that host; need not exist yet.
    :param name: [daemon] plugin_name of those settings.
    :returns: the path of the executable.
    """
    with open(PLUGIN, encoding="utf-8") as script:
        options = script.readline().split()[1:]  # those of the shebang, which this replaces
    command = " ".join(map(shlex.quote, [python, *options, PLUGIN]))
    path = os.path.join(plugin_dir, name)
    with open(path + "~", "w", encoding="utf-8") as shim:
        shim.write(f"#!/bin/sh\nXSCONTAINER_CONF={shlex.quote(conf_path)}\nexport XSCONTAINER_CONF\n"
                   f'exec {command} "$@"\n')
    os.chmod(path + "~", 0o755)
    os.rename(path + "~", path)
    return path
