"""The forms of get_inspect and get_top, through the plugin of a simulated pool."""

import json
from typing import Any, Iterator

import pytest
import XenAPI

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer.errors import XapiError
from xscontainer.simulator.world import GuestSpec, Parts, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), hosts=1, guests=(GuestSpec("vm"),),
               parts=Parts(engine="embedded")) as made:
        made.vm("vm").engine.run("web", ("sleep", "1000"), Env=["A=\u00e9", "DB_PASSWORD=hunter2"],
                                 Labels={"x.token": "hunter3"})
        made.wait_published("vm", lambda listed: "web" in listed)
        yield made


def call(world: World, function: str, **arguments: str) -> str:
    return str(world.call(0, function, vmuuid=world.vm("vm").uuid, object="web", **arguments))


def test_json_is_the_engines_own_object(world: World) -> None:
    text = call(world, "get_inspect", format="json")
    assert text.startswith("True{")
    text.encode("ascii")
    found = json.loads(text[4:])
    assert found["Name"] == "/web" and found["Config"]["Env"] == ["A=\u00e9", "DB_PASSWORD=hunter2"]
    assert found["State"]["Running"] is True and isinstance(found["HostConfig"], dict)


@pytest.mark.parametrize("form", ["xml", "json"])
def test_a_masked_environment_shows_names_only(world: World, form: str) -> None:
    shown = call(world, "get_inspect", format=form)
    assert "hunter2" in shown and "hunter3" in shown
    masked = call(world, "get_inspect", format=form, environment="masked")
    assert "hunter" not in masked and "DB_PASSWORD=***" in masked and "A=***" in masked


def test_the_default_form_is_xml_with_the_environment(world: World) -> None:
    for function, more in (("get_inspect", {"environment": "shown"}), ("get_top", {})):
        assert call(world, function).startswith("True<?xml")
        assert call(world, function) == call(world, function, format="xml", **more)


def test_top_gives_titles_and_processes(world: World) -> None:
    found = json.loads(call(world, "get_top", format="json")[4:])
    assert set(found) == {"titles", "processes"} and found["processes"]
    assert all(len(row) == len(found["titles"]) for row in found["processes"])


@pytest.mark.parametrize("function, name, value", [
    ("get_inspect", "format", "yaml"), ("get_inspect", "format", ""), ("get_inspect", "environment", "hidden"),
    ("get_inspect", "environment", "Masked"), ("get_top", "format", "JSON")])
def test_other_values_are_refused(world: World, function: str, name: str, value: str) -> None:
    with pytest.raises((XapiError, XenAPI.Failure)) as refused:
        call(world, function, **{name: value})
    assert refused.value.details[0] == "ARGUMENT_INVALID" and name in refused.value.details[1]
