"""Measure the engine room: ``python -m tests.engine.bench [connections] [idle seconds]``.

Prints one JSON object: latencies in ms, memory in KiB, CPU in percent of one core.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

from tests.engine.peers import Script, Server, SocketConnection, Sshd, http_answer
from xscontainer.settings import EngineSettings, GuestSettings

ENTRY = {"Id": "a" * 64, "Names": ["/name"], "Image": "image:latest", "Command": "sleep 100", "Created": 1700000000,
         "State": "running", "Status": "Up 5 minutes", "Ports": []}


def rss() -> int:
    with open("/proc/self/statm") as source:
        return int(source.read().split()[1]) * resource.getpagesize() // 1024


def timed(times: int, call: Callable[[], Any]) -> Dict[str, float]:
    taken: List[float] = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    taken.sort()
    return {"median": round(taken[times // 2], 2), "p95": round(taken[int(times * 0.95)], 2)}


def import_cost(modules: str) -> Dict[str, float]:
    code = ("import time, resource; t = time.perf_counter()\n" + (f"import {modules}\n" if modules else "")
            + "print((time.perf_counter() - t) * 1000, int(open('/proc/self/statm').read().split()[1]) * 4)")
    out = subprocess.check_output([sys.executable, "-W", "ignore", "-c", code]).split()
    return {"ms": round(float(out[0])), "rss": int(out[1])}


def serve(path: str) -> None:
    """Run the engine in its own process until the end of standard input."""
    def events(peer: Any, head: str) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.recv(1)

    lists = {f"/list{count}/json": http_answer(json.dumps({"list": [ENTRY] * count}).encode()) for count in (50, 1000)}
    answers = dict(lists, **{"/events": events, "/containers/json": http_answer(json.dumps([ENTRY] * 10).encode())})
    with Server(Script(answers), path):
        print("ready", flush=True)
        sys.stdin.read()


def main(connections: int, idle: float) -> Dict[str, Any]:
    found: Dict[str, Any] = {
        "python": sys.version.split()[0],
        "import": {name or "nothing": import_cost(name)
                   for name in ("", "paramiko", "docker", "xscontainer.engine.ssh.connection",
                                "xscontainer.engine.api")},
    }
    from xscontainer.engine import api
    from xscontainer.engine.ssh import connection as ssh
    pair = ssh.new_key_pair(3072)
    key = ssh.load_private_key(pair.private)
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "engine.sock")
    engine_process = subprocess.Popen([sys.executable, "-m", "tests.engine.bench", "--serve", path],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert engine_process.stdout is not None and engine_process.stdin is not None
    engine_process.stdout.readline()
    try:
        with Sshd(directory, pair.public, "LoginGraceTime 120") as sshd:
            target = ssh.Target(("127.0.0.1",), sshd.port, sshd.user, path, host_key=sshd.host_key("ed25519"))

            def connect() -> ssh.SSHConnection:
                return ssh.connect(target, key, GuestSettings(handshake_timeout=30, login_timeout=30), EngineSettings())

            def once() -> None:
                connect().close()

            found["connect"] = timed(20, once)
            one = connect()
            engine = api.Engine(one, EngineSettings())
            plain = api.Engine(SocketConnection(path), EngineSettings())
            engine.containers()
            plain.containers()
            found["list of 10 over ssh"] = timed(500, engine.containers)
            found["list of 10 without ssh"] = timed(500, plain.containers)
            for count in (50, 1000):
                found[f"list of {count} over ssh"] = timed(30, lambda count=count: engine.inspect(f"list{count}"))
            engine.close()
            plain.close()
            plain.connection.close()
            started = time.perf_counter()
            one.close()
            found["close"] = round((time.perf_counter() - started) * 1000, 2)

            before, threads, cpu = rss(), threading.active_count(), time.process_time()
            started = time.perf_counter()
            with ThreadPoolExecutor(8) as pool:
                opened = list(pool.map(lambda _: connect(), range(connections)))
            found["connect all"] = {"seconds": round(time.perf_counter() - started, 2),
                                    "cpu seconds": round(time.process_time() - cpu, 2)}
            bare = rss()
            engines = [api.Engine(connection, EngineSettings()) for connection in opened]
            for engine in engines:
                engine.containers()
            streams = [engine.events() for engine in engines]
            found["memory each, connected"] = round((bare - before) / connections, 1)
            found["memory each, with client and events"] = round((rss() - before) / connections, 1)
            found["rss"] = rss()
            time.sleep(1)
            found["threads each"] = (threading.active_count() - threads) / connections
            cpu = time.process_time()
            time.sleep(idle)
            found["idle cpu %"] = round((time.process_time() - cpu) / idle * 100, 2)
            assert not any(stream.closed for stream in streams)
            for engine in engines:
                engine.close()
            started = time.perf_counter()
            for connection in opened:
                connection.close()
            found["close all"] = round((time.perf_counter() - started) * 1000, 1)
    finally:
        engine_process.stdin.close()
        engine_process.stdout.close()
        engine_process.wait(10)
        shutil.rmtree(directory)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        print(json.dumps(main(int((sys.argv + ["100"])[1]), float((sys.argv + ["", "20"])[2] or 20)), indent=1))
