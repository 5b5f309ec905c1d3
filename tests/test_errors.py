"""The errors are an interface: their codes, and the tree that the module's text draws."""

import re
from pathlib import Path
from typing import Dict, List, Type

from xscontainer import errors
from xscontainer.errors import XapiError, XSContainerError


def classes(of: Type[XSContainerError]) -> List[Type[XSContainerError]]:
    return [of] + [below for child in of.__subclasses__() for below in classes(child)]


def test_every_class_has_a_code_of_its_own() -> None:
    found = [cls.code for cls in classes(XSContainerError) if cls.__module__ == errors.__name__]
    assert len(set(found)) == len(found)
    assert all(re.match(r"[A-Z][A-Z_]+\Z", code) for code in found)


def drawing() -> Dict[str, List[str]]:
    """As the module's text has it: class -> parent, code ("" for a group of causes)."""
    drawn: Dict[str, List[str]] = {}
    path: List[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([|+ -]*)([A-Z]\w+)(?: +([A-Z_]{4,}))?", line)
        if match:
            path[len(match.group(1)) // 4:] = [match.group(2)]
            drawn[match.group(2)] = [path[-2] if len(path) > 1 else "Exception", match.group(3) or ""]
    return drawn


def test_the_drawing_is_the_tree() -> None:
    drawn = drawing()
    real = {cls.__name__: cls for cls in classes(XSContainerError) if cls.__module__ == errors.__name__}
    assert set(drawn) == set(real)
    for name, (parent, code) in drawn.items():
        assert real[name].__bases__[0].__name__ == parent, name
        assert code in ("", real[name].code), name


def test_the_readme_has_all_codes() -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
    rows = re.search(r"The codes, which do not change:\n\n((?:\|.*\n)+)", readme)
    assert rows
    told = re.findall(r"`([A-Z_]+)`", rows.group(1))
    # Two are the plugin's own process', which does not import the tree.
    real = [code for _, code in drawing().values() if code] + ["PLUGIN_INCOMPLETE", "DAEMON_LOST"]
    assert sorted(told) == sorted(real)


def test_an_error_is_sentences_and_a_failure_of_xapi() -> None:
    for cls in classes(XSContainerError):
        error = cls("It failed.")
        assert error.description() == [cls.code, str(error)]
        assert str(error).startswith("It failed.") and str(error).endswith(".")
    assert str(XSContainerError("It failed.", "Mend it.")) == "It failed. Mend it."


def test_a_hint_of_ones_own_replaces_the_usual_one() -> None:
    assert str(errors.VMElsewhere("Gone.", "Look there.")) == "Gone. Look there."
    assert str(errors.VMElsewhere("Gone.")) == "Gone. Repeat the call."


def test_details_of_xapi() -> None:
    assert XapiError("x", details=["CODE", "a"]).details == ["CODE", "a"]
    assert XapiError("x").details == []
