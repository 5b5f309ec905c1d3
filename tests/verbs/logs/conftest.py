from typing import Iterator

import pytest

from tests.verbs.logs import scene as scenes


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[scenes.Scene]":
    with scenes.entered(str(tmp_path_factory.mktemp("e"))) as made:
        yield made
