"""Print what cloud-init's own code finds in a directory; runs in the interpreter of cloud-init.

Arguments: configdrive or nocloud, the directory. Prints JSON: user-data in base64, metadata.
"""

import base64
import json
import sys


def main(layout: str, directory: str) -> None:
    if layout == "configdrive":
        from cloudinit.sources import DataSourceConfigDrive  # type: ignore[import-not-found, unused-ignore]

        found = DataSourceConfigDrive.read_config_drive(directory)
        user_data, metadata = found["userdata"], found["metadata"]
        metadata.pop("random_seed", None)
    else:
        from cloudinit import util  # type: ignore[import-not-found, unused-ignore]

        seed = util.pathprefix2dict(directory, required=["user-data", "meta-data"])
        user_data, metadata = seed["user-data"], util.load_yaml(seed["meta-data"])
    print(json.dumps({"user-data": base64.b64encode(user_data).decode(), "metadata": metadata}))


if __name__ == "__main__":
    main(*sys.argv[1:])
