"""The data of one host that API methods use: names, files, and whether its xapi serves."""

import os


class HostData:
    """Identity and files of a simulated host.

    up: whether its xapi serves now. life: how often it has started. tcp_port, https_port: 0
    until it first serves there. certificate: PEM, of HTTPS.
    """

    def __init__(self, number: int, directory: str, network: str = "10.77") -> None:
        self.name_label = "host{}".format(number)
        self.address = "{}.{}.{}".format(network, (number - 1) // 250, (number - 1) % 250 + 1)
        self.ref = ""
        self.uuid = ""
        self.up = False
        self.life = 0
        self.tcp_port = 0
        self.https_port = 0
        self.certificate = ""
        self.directory = os.path.join(directory, self.name_label)
        self.plugin_dir = os.path.join(self.directory, "plugins")
        # Unix sockets of daemons, to which xapi passes requests; a daemon makes the directory. /var/lib/xcp/plugin.
        self.service_dir = os.path.join(self.directory, "services")
        self.inventory_path = os.path.join(self.directory, "xensource-inventory")
        self.pool_conf_path = os.path.join(self.directory, "pool.conf")
        os.makedirs(self.plugin_dir, exist_ok=True)
