"""A stand-in for `ssh`: what is told to a server runs on this machine, and each login is counted.

It has OpenSSH's shared connections and their forwards, as far as this project uses them;
tests/remote has the real one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import psutil
import pytest

from cluster.tigerbeetle.waiting import wait_until

_PROGRAM = '''#!{python}
import os, re, socket, subprocess, sys, threading

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

def note(what):
    with open(HERE + "/said", "a") as log:
        print(what, file=log)

def told(name, default=""):
    path = HERE + "/" + name
    return open(path).read() if os.path.exists(path) else default

def alone(serve):
    """Go on without whoever has started this, as a shared connection does."""
    if os.fork():
        return
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    note("pid " + str(os.getpid()))
    serve()
    os._exit(0)

def listen(listener, handle):
    listener.listen()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=[connection], daemon=True).start()

def forward(connection):
    try:
        there = socket.create_connection(("127.0.0.1", int(told("port"))))
    except OSError:
        return connection.close()
    threading.Thread(target=pump, args=[there, connection], daemon=True).start()
    pump(connection, there)

def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass

def is_alive(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0

arguments = sys.argv[1:]
path = next((a.partition("=")[2] for a in arguments if a.startswith("-oControlPath=")), "none")
if "-O" in arguments:
    # Back from there or not, both ends are of this machine.
    way = next(i for i, argument in enumerate(arguments) if argument in ("-L", "-R"))
    verb, spec = arguments[arguments.index("-O") + 1], arguments[way + 1]
    note(verb + " " + spec)
    if verb == "forward":
        listener = socket.create_server(("127.0.0.1", int(spec.split(":")[1])))
        alone(lambda: listen(listener, forward))
    sys.exit(0)
is_shared = "-fN" in arguments
if is_shared or path == "none" or not is_alive(path):
    note("login " + arguments[-1 if is_shared else -2])
    if failure := told("failure"):
        sys.exit(print(failure, file=sys.stderr) or 255)
if is_shared:
    master = socket.socket(socket.AF_UNIX)
    master.bind(path)
    alone(lambda: listen(master, lambda connection: connection.close()))
    sys.exit(0)
note("run " + arguments[-1])
print(told("motd"), end="", flush=True)
if told("shell"):
    sys.exit(1)
os.execvp("sh", ["sh", "-c", arguments[-1]])
'''


@dataclass(frozen=True)
class StandIn:
    """What it has seen, and what it is to be like."""

    directory: Path

    @property
    def said(self) -> list[str]:
        """Everything that was asked of it."""
        return (self.directory / "said").read_text().splitlines()

    @property
    def logins(self) -> list[str]:
        """The hosts to which it has logged in, one for each login, as far as they got."""
        return [line.removeprefix("login ") for line in self.said if line.startswith("login ")]

    @property
    def forwards(self) -> list[str]:
        """The tunnels that were opened."""
        return [line.removeprefix("forward ") for line in self.said if line.startswith("forward ")]

    def be(self, **ways: str) -> None:
        """``failure`` is said instead of a login, ``motd`` after each; ``shell`` runs nothing;
        ``port`` of this machine is where all tunnels end.
        """
        for name, text in ways.items():
            (self.directory / name).write_text(text)

    def end(self) -> None:
        """Kill all connections and tunnels, which leaves their sockets behind."""
        for pid in [int(line.split()[1]) for line in self.said if line.startswith("pid ")]:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                process.kill()
                wait_until(
                    lambda process=process: (  # type: ignore[misc]
                        not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
                        "it runs",
                    ),
                    what="a connection to end",
                    timeout_s=30,
                )


@contextmanager
def standing_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Have it on PATH, with shared connections of its own: for this program and those it starts."""
    directory = Path(tempfile.mkdtemp(prefix="ws-", dir="/tmp"))  # a socket's path has 100 bytes
    program = directory / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o700)
    (directory / "said").touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    made = StandIn(directory)
    try:
        yield made
    finally:
        made.end()
        rmtree(directory)
