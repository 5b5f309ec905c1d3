import contextlib
from typing import Any, Callable, Iterator

import pytest

from tests.verbs.prepare.guests import FreshGuest
from tests.verbs.prepare.world import Fresh
from xscontainer.engine.ssh.keypair import load_private_key, new_key_pair


@pytest.fixture
def make_guest(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Callable[..., FreshGuest]]":
    """Starts a FreshGuest with these parameters."""
    with contextlib.ExitStack() as stack:
        yield lambda **parameters: stack.enter_context(
            FreshGuest(str(tmp_path_factory.mktemp("g")) + "/g", **parameters))


@pytest.fixture(scope="session")
def pool_key() -> Any:
    return load_private_key(new_key_pair(2048).private)


@pytest.fixture(scope="session")
def next_key() -> Any:
    return load_private_key(new_key_pair(2048).private)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w") as made:
        yield made
