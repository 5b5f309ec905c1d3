"""Each error has an exit code, and the help, the man page and the reference say the same."""

import argparse
from pathlib import Path
from typing import List, Type

import pytest

from xscontainer import errors
from xscontainer.cli import exit_codes, program
from xscontainer.cli.exit_codes import FAILED, NOT_FOUND, NOT_PERMITTED, UNREACHABLE, USAGE
from xscontainer.errors import XapiError, XSContainerError

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.mark.parametrize("kind, code", [
    (errors.ArgumentError, USAGE), (errors.SettingsError, USAGE),
    (errors.NotFound, NOT_FOUND), (errors.Ambiguous, NOT_FOUND), (errors.ObjectGone, NOT_FOUND),
    (errors.ContainerNotFound, NOT_FOUND),
    (errors.XapiUnavailable, UNREACHABLE), (errors.GuestFiltered, UNREACHABLE), (errors.KeyNotAccepted, UNREACHABLE),
    (errors.SSHWeak, UNREACHABLE), (errors.EngineStopped, UNREACHABLE), (errors.EngineTimeout, UNREACHABLE),
    (errors.VMNotRunning, UNREACHABLE),
    (errors.NotPermitted, NOT_PERMITTED),
    (errors.XapiError, FAILED), (errors.EngineRefused, FAILED), (errors.ContainerConflict, FAILED),
    (errors.PasswordNotAccepted, FAILED), (errors.KeyLineRestricted, FAILED), (errors.Busy, FAILED),
    (errors.LogsUnreadable, FAILED), (errors.VMNotRegistered, FAILED),
])
def test_an_error_and_a_function_that_fails_with_its_code_have_the_same_exit_code(kind: Type[XSContainerError],
                                                                                  code: int) -> None:
    assert exit_codes.of(kind("It failed.")) == code
    assert exit_codes.of(XapiError("It failed.", details=[kind.code, "It failed."])) == code


@pytest.mark.parametrize("details, code", [
    (["RBAC_PERMISSION_DENIED", "host.call_plugin", "No permission"], NOT_PERMITTED),
    (["SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure"], NOT_PERMITTED),
    (["INTERNAL_ERROR", "Not_found"], FAILED), (["SR_FULL"], FAILED), ([], FAILED),
    (["XENAPI_PLUGIN_FAILURE", "xscontainer", "XSCONTAINER_ERROR", "It failed."], FAILED),
])
def test_a_failure_of_xapi_has_an_exit_code(details: List[str], code: int) -> None:
    assert exit_codes.of(XapiError("XAPI refused.", details=details)) == code


@pytest.mark.parametrize("error, code", [
    (errors.NotFound("The pool has no VM 'x'."), 4), (errors.XapiUnavailable("No answer."), 5),
    (XapiError("It failed.", details=["NOT_PERMITTED", "It failed."]), 6), (errors.SettingsError("Wrong."), 2),
    (errors.StorageError("Full."), 1)])
def test_a_command_ends_with_the_exit_code_of_its_error(error: XSContainerError, code: int, tmp_path: Path,
                                                        capsys: "pytest.CaptureFixture[str]") -> None:
    (tmp_path / "conf").write_text("")

    def run(*_: object) -> int:
        raise error

    assert program.guarded("program", argparse.Namespace(config=str(tmp_path / "conf"), run=run)) == code
    assert capsys.readouterr().err == f"program: {error}\n"


def test_every_exit_code_is_in_the_help_the_man_page_and_the_reference() -> None:
    text = " ".join(program.parser().format_help().split())
    man = (DOCS / "man" / "xscontainer.1").read_text("utf-8").replace("\\-", "-")
    reference = (DOCS / "cli.md").read_text("utf-8")
    for row in exit_codes.rows():
        assert f"{row.code}: {row.meaning}." in text
        assert f"{row.code}: {row.meaning}." in man
        assert f"| {row.code} | {row.meaning} |" in reference


def test_the_reference_has_each_error_code_once() -> None:
    listed = [code for row in exit_codes.rows() for code in row.errors]
    assert len(set(listed)) == len(listed) > 40
    assert {"NOT_FOUND", "AMBIGUOUS", "XAPI_UNAVAILABLE", "ENGINE_STOPPED", "RBAC_PERMISSION_DENIED"} <= set(listed)
