"""The channels of an embedded SSH server, with a Unix socket or a command at the other end."""

import contextlib
import os
import selectors
import socket
import subprocess
import threading
from typing import Dict

import paramiko

from xscontainer.simulator.engines import processes, relay

_CHUNK = 65536


def hold(channel: paramiko.Channel, unix: socket.socket) -> None:
    with unix, contextlib.suppress(EOFError, OSError):
        while channel.recv(_CHUNK):
            pass
    close(channel)


def to_socket(channel: paramiko.Channel, unix: socket.socket) -> None:
    try:
        while True:
            data = channel.recv(_CHUNK)
            if not data:
                unix.shutdown(socket.SHUT_WR)
                return
            unix.sendall(data)
    except (EOFError, OSError):
        relay.shut(unix)
    finally:
        if channel.closed:
            relay.shut(unix)


def to_channel(unix: socket.socket, channel: paramiko.Channel) -> None:
    with unix:
        with contextlib.suppress(EOFError, OSError):  # the client or the engine has closed its end meanwhile
            while True:
                data = unix.recv(_CHUNK)
                if not data:
                    break
                channel.sendall(data)
        close(channel)


def close(channel: paramiko.Channel) -> None:
    """Close a channel. paramiko raises EOFError if its transport has ended."""
    with contextlib.suppress(EOFError, OSError):
        channel.close()


def run_command(
    channel: paramiko.Channel, command: bytes, environment: Dict[str, str], directory: str
) -> None:
    """Run a client's command in a shell, with stdin, stdout, stderr and exit code on the channel."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", os.fsdecode(command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, cwd=directory, start_new_session=True, bufsize=0,
    )
    feeder = threading.Thread(target=_feed, args=(channel, child), name="simulator-stdin", daemon=True)
    feeder.start()
    try:
        with contextlib.suppress(EOFError, OSError):  # the client has closed its end meanwhile
            _collect(channel, child)
    finally:
        kill_tree(child)
        if child.stdout is not None and child.stderr is not None:
            child.stdout.close()
            child.stderr.close()
        with contextlib.suppress(EOFError, OSError):
            if not channel.closed:
                channel.send_exit_status(child.returncode if child.returncode >= 0 else 255)
        close(channel)
        feeder.join(5.0)


def _feed(channel: paramiko.Channel, child: "subprocess.Popen[bytes]") -> None:
    """Feed stdin. If the client closes the channel, the command ends as after a hang-up."""
    assert child.stdin is not None
    try:
        while True:
            data = channel.recv(_CHUNK)
            if not data:
                break
            child.stdin.write(data)
    except OSError:
        pass
    child.stdin.close()
    if channel.closed:
        kill_tree(child)


def _collect(channel: paramiko.Channel, child: "subprocess.Popen[bytes]") -> None:
    assert child.stdout is not None and child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, channel.sendall)
        selector.register(child.stderr, selectors.EVENT_READ, channel.sendall_stderr)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _CHUNK)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fileobj)
    child.wait()


def kill_tree(child: "subprocess.Popen[bytes]") -> None:
    """Kill the command and all that it started, and reap it."""
    if child.poll() is None:
        processes.kill(processes.descendants([child.pid]) | {child.pid})
        child.wait()
