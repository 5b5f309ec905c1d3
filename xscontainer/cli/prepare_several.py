"""Prepare several VMs: the questions one after the other, then the work on several VMs at once, then one summary."""

import argparse
import contextlib
import functools
import threading
from concurrent.futures import Future
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from xscontainer.cli import exit_codes, prepare_steps, several, tls_options
from xscontainer.cli.ui import prompts
from xscontainer.cli.ui.columns import Line, Note, Row, lay_out, neutral
from xscontainer.cli.ui.output import complain, say, terminal_width, write
from xscontainer.core.naming import NamedVM
from xscontainer.errors import ArgumentError, CalledOff, XapiError, XSContainerError
from xscontainer.settings import Settings
from xscontainer.xapi import secret
from xscontainer.xapi.session import Session

HEADER = ("VM", "RESULT", "ENGINE", "CONTAINERS")

Answer = Dict[str, Any]


class _One(NamedTuple):
    """A VM with the arguments of the plugin function for it."""

    vm: NamedVM
    request: prepare_steps.Request


def check(options: argparse.Namespace) -> None:
    """Check that no option is given that is true of one VM alone.

    :raises ArgumentError: when one is.
    """
    for option in ("fingerprint", "address"):
        if getattr(options, option) is not None:
            raise ArgumentError(f"--{option} is for one VM, and several are given.", "Prepare that VM alone.")
    if options.generate_certs:
        raise ArgumentError("--generate-certs is for one VM, and several are given: somebody runs a script in the VM.",
                            "Prepare the VMs one by one.")


def run(session: Session, options: argparse.Namespace, settings: Settings, vms: "Sequence[NamedVM]") -> int:
    """Prepare the VMs, print a summary and return the exit code. A VM that fails does not stop the others."""
    check(options)
    with contextlib.ExitStack() as stack:
        every = []
        for vm in vms:
            certificates = stack.enter_context(tls_options.arguments(session, options, vm.uuid))
            arguments = {**prepare_steps.given(options), **certificates}
            every.append(_One(vm, prepare_steps.Request(vm.uuid, arguments, None, options.yes, options.password_fd,
                                                        options.agent)))
        return _Batch(session, options, settings, every).run()


class _Batch:
    """The VMs of one command.

    :ivar failures: VM uuid -> why it is not prepared.
    """

    def __init__(self, session: Session, options: argparse.Namespace, settings: Settings,
                 every: "List[_One]") -> None:
        self._session, self._options, self._settings = session, options, settings
        self._all = every
        self._interrupted = threading.Event()
        self._answers: Dict[str, Answer] = {}
        self.failures: Dict[str, XSContainerError] = {}

    def run(self) -> int:
        ready = self._confirmed()
        if self._options.agent:
            self._by_agent(ready)
        else:
            self._by_password(self._work(ready))
        return self._summary()

    def _confirmed(self) -> "List[_One]":
        """Ask the questions about host keys; return the VMs whose host keys may be trusted."""
        over_ssh = [one for one in self._all if prepare_steps.is_over_ssh(self._session, one.request)]
        shown = self._at_once(over_ssh, lambda session, one: prepare_steps.shown_host_key(
            session, self._settings, one.request))
        ready = [one for one in self._all if one not in over_ssh]
        for one in over_ssh:
            if one.vm.uuid not in shown:
                continue
            found = shown[one.vm.uuid]
            if prepare_steps.is_pinned(found, one.request):
                ready.append(one)
                continue
            print(f"{neutral(one.vm.label)}:")
            try:
                fingerprint = prepare_steps.confirmed(found, one.request)
            except XSContainerError as error:
                self._fail(one, error)
                continue
            ready.append(one._replace(request=one.request._replace(
                arguments={**one.request.arguments, "fingerprint": fingerprint})))
        return ready

    def _by_agent(self, ready: "List[_One]") -> None:
        for one in ready:  # one after the other: the agent may ask its user each time
            try:
                arguments = dict(one.request.arguments)
                fingerprint = arguments.pop("fingerprint", "")
                self._answers[one.vm.uuid] = prepare_steps.by_agent(
                    self._settings, one.request._replace(arguments=arguments), fingerprint)
            except XSContainerError as error:
                self._fail(one, error)

    def _by_password(self, pending: "List[_One]") -> None:
        """Ask for a password for each user whose VMs do not accept the pool's key yet, and prepare these VMs."""
        by_user: Dict[str, List[_One]] = {}
        for one in pending:
            by_user.setdefault(prepare_steps.user_of(self._session, self._settings, one.request), []).append(one)
        if len(by_user) > 1 and self._options.password_fd is not None:
            for one in pending:
                self._fail(one, ArgumentError("The VMs have different users, so one password cannot be for all.",
                                              "Name the user with -u, or prepare the VMs one by one."))
            return
        for user, waiting in by_user.items():
            tries = 1 if self._options.password_fd is not None else prepare_steps.TRIES
            while waiting and tries:
                tries -= 1
                names = ", ".join(one.vm.label for one in waiting)
                try:
                    password = prompts.password(user, self._options.password_fd, names)
                except XSContainerError as error:
                    for one in waiting:
                        self._fail(one, error)
                    break
                waiting = self._work(waiting, password, last=not tries)

    def _work(self, ready: "Sequence[_One]", password: str = "", last: bool = False) -> "List[_One]":
        """Call the plugin function for the VMs; return those for which a password is to be asked (again).

        :param password: "": none, so that only the pool's key is tried.
        """
        again: List[_One] = []

        def failed(one: _One, error: XSContainerError) -> None:
            code = error.details[:1] if isinstance(error, XapiError) else []
            if code == ["KEY_NOT_ACCEPTED"] and not password or code == ["PASSWORD_NOT_ACCEPTED"] and not last:
                again.append(one)
                if password:
                    complain(error, one.vm.label)
            else:
                self._fail(one, error)

        self._answers.update(self._at_once(ready, functools.partial(self._call, password=password), failed))
        return again

    def _call(self, session: Session, one: _One, password: str) -> Answer:
        def report(step: str) -> None:
            say(f"... {one.vm.label}: {step}")

        def pause(seconds: float) -> None:
            if self._interrupted.wait(seconds):
                raise KeyboardInterrupt

        arguments = dict(one.request.arguments, vmuuid=one.vm.uuid)
        if not password:
            return prepare_steps.call(session, self._settings, arguments, report, pause)
        uuid = secret.keep_password(session, password, one.vm.uuid)
        try:
            return prepare_steps.call(session, self._settings, dict(arguments, passwordsecret=uuid), report, pause)
        finally:
            secret.forget_password(session, uuid)

    def _at_once(self, ones: "Sequence[_One]", act: "Callable[[Session, _One], Answer]",
                 failed: "Optional[Callable[[_One, XSContainerError], None]]" = None) -> "Dict[str, Answer]":
        """Act on the VMs, on 4 at once; return the results by the VM's uuid. Errors are passed to ``failed``."""
        def unless_interrupted(session: Session, one: _One) -> Answer:
            if self._interrupted.is_set():
                raise CalledOff("The command was interrupted.")
            return act(session, one)

        outcomes: "List[Future[Answer]]" = several.begun(self._session, ones, unless_interrupted)
        found = {}
        try:
            for one, outcome in zip(ones, outcomes):
                try:
                    found[one.vm.uuid] = outcome.result()
                except XSContainerError as error:
                    (failed or self._fail)(one, error)
        except BaseException:
            self._interrupted.set()
            for outcome in outcomes:  # each one cancels its function, which removes what it has made
                with contextlib.suppress(BaseException):
                    outcome.result(prepare_steps.ENDING)
            raise
        return found

    def _fail(self, one: _One, error: XSContainerError) -> None:
        self.failures[one.vm.uuid] = error
        complain(error, one.vm.label)

    def _summary(self) -> int:
        lines: List[Line] = [Row(0, HEADER)]
        codes = []
        for one in self._all:
            error, answer = self.failures.get(one.vm.uuid), self._answers.get(one.vm.uuid)
            if answer is not None:
                for sentence in prepare_steps.remarks(answer):
                    say(f"xscontainer: {one.vm.label}: {sentence}")
                lines.append(Row(0, (one.vm.label, _result(answer), str(answer["engine"]), str(answer["containers"]))))
                codes.append(exit_codes.DONE if answer["published"] else prepare_steps.NOT_LISTED)
            elif error is not None:
                code = error.details[0] if isinstance(error, XapiError) and error.details else error.code
                lines.append(Row(0, (one.vm.label, f"not prepared: {code}")))
                codes.append(exit_codes.of(error))
        lines.append(Note(0, f"{len(self._answers)} of {len(self._all)} VMs are prepared."))
        write(lay_out(lines, terminal_width()))
        if set(codes) == {exit_codes.DONE, prepare_steps.NOT_LISTED}:
            return prepare_steps.NOT_LISTED
        return several.joint_code(codes)


def _result(answer: Answer) -> str:
    if not answer["published"]:
        return "prepared, no list is published yet"
    return "prepared, key installed" if answer["key_installed"] else "prepared"
