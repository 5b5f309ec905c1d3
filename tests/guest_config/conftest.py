"""One host key for all tests of a run."""

from pathlib import Path

import pytest

from tests.guest_config.filling import HostKey, make_host_key


@pytest.fixture(scope="session")
def host_key(tmp_path_factory: pytest.TempPathFactory) -> HostKey:
    directory: Path = tmp_path_factory.mktemp("host-key")
    return make_host_key(directory)
