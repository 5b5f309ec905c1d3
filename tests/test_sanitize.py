"""The constants of sanitize that are written out for start-up time."""

from xscontainer import sanitize


def test_space_is_all_that_python_trims() -> None:
    assert sanitize.SPACE == "".join(chr(code) for code in range(0x10000) if chr(code).isspace()) + "\ufeff"
