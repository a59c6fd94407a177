"""Machines whose programs, sockets or ports are not what they are taken for."""

from __future__ import annotations

import socket
import threading
import xmlrpc.client
from functools import partial

from cluster.config import PREFIX
from tests.operate.place import REPLICAS, Machine, Place, named

ENGINE = (
    '{"ServerVersion":"27.0.1","KernelVersion":"6.1.0","Name":"elsewhere","MemTotal":99999999999,'
    '"DockerRootDir":"/","SecurityOptions":[],"Plugins":{"Log":[]}}'
)


# --- Programs ------------------------------------------------------------------------------------


def _docker(script: str) -> Machine:
    def machine(place: Place) -> None:
        place.program("docker", f"#!/bin/sh\n{script}\n")
        place.environ["INVENTORY"] = "inventories/local.py"

    return machine


_ANSWERS = (
    f"case \"$1 $2\" in 'info '*) echo '{ENGINE}'; exit;; "
    "'compose version') echo 2.30; exit;; esac\n"
)
for _name, _script in {
    "does not answer": "echo Cannot connect to the Docker daemon >&2; exit 1",
    "denied": "echo permission denied while trying to connect >&2; exit 1",
    "ends with 127": "exit 127",
    "prints noise": "printf '\\377\\376<html>'",
    "prints a list": "echo []",
    "prints null": "echo null",
    "prints {}": "echo {}",
    "prints a number": "echo 7",
    "is of no known version": 'echo \'{"ServerVersion":"banana"}\'',
    "says little of itself": 'echo \'{"ServerVersion":"27.0.1"}\'',
    "is no engine behind": f"{_ANSWERS} exit 1",
    "prints noise behind": f"{_ANSWERS} echo '<html>'",
    "prints null behind": f"{_ANSWERS} echo null",
    "prints [{}] behind": f"{_ANSWERS} echo '[{{}}]'",
    "prints nothing behind": f"{_ANSWERS} exit 0",
}.items():
    named(f"docker: {_name}", _docker(_script))


def _server(place: Place, script: str) -> None:
    place.program("tigerbeetle", script)
    place.environ["INVENTORY"] = "inventories/process.py"
    place.state.rename(place.data / "process")


_LIES = "#!/bin/sh\ntest $1 = version && echo TigerBeetle version 0.17.9 || printf '\\377\\376'\n"
for _name, _script in {
    "ends with 127": "#!/bin/sh\nexit 127\n",
    "prints noise": "#!/bin/sh\nprintf '\\377\\376'\n",
    "is no program": "\x7f",
    "has no interpreter": "#!/nonexistent\n",
    "inspects nothing": _LIES,
}.items():
    named(f"tigerbeetle: {_name}", partial(_server, script=_script))


def _no_programs(place: Place, inventory: str) -> None:
    place.environ |= {"PATH": "/nonexistent", "INVENTORY": inventory}


named("PATH: empty", partial(_no_programs, inventory="inventories/process.py"))
named("PATH: no docker", partial(_no_programs, inventory="inventories/local.py"))


def _not_executable(place: Place) -> None:
    for name in ("docker", "ssh", "git", "tigerbeetle"):
        (place.programs / name).write_text("x")
        (place.programs / name).chmod(0o644)
    place.environ |= {"PATH": str(place.programs), "INVENTORY": "inventories/local.py"}


named("PATH: not executable", _not_executable)


# --- Sockets and processes -----------------------------------------------------------------------


def _talking(place: Place, made: socket.socket, answer: bytes | None) -> None:
    """Listen, and say this to whoever has spoken; None: never say anything."""
    made.listen(50)
    kept: list[socket.socket] = [made]

    def serve() -> None:
        while True:
            try:
                caller, _ = made.accept()
                kept.append(caller)
                if answer is not None:
                    caller.recv(10)
                    caller.sendall(answer)
                    caller.close()
            except OSError:
                if made.fileno() == -1:
                    return

    threading.Thread(target=serve, daemon=True).start()

    def end() -> None:
        made.shutdown(socket.SHUT_RDWR)
        for each in kept:
            each.close()

    place.at_end.append(end)


def _supervisor(place: Place, answer: bytes | None) -> None:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(place.state / "supervisor.sock"))
    _talking(place, made, answer)


def _xml(value: object) -> bytes:
    body = xmlrpc.client.dumps((value,), methodresponse=True).encode()  # type: ignore[arg-type]
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


for _name, _answer in {
    "of something else": b"\0\1\2\xff\n",
    "of a web server": b"HTTP/1.0 200 OK\r\n\r\n<html>",
    "of another supervisor": _xml([{"name": "other", "statename": "RUNNING", "pid": 3}]),
    "of a number": _xml(7),
    "that closes": b"",
}.items():
    named(f"supervisor's socket: {_name}", partial(_supervisor, answer=_answer))


def _stale(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(place.state / "supervisor.sock"))
    (place.state / "supervisord.pid").write_text("999999")


named("supervisor's socket: stale", _stale)
named("supervisor's socket: a file", lambda p: (p.state / "supervisor.sock").write_text("x"))


def _pids(place: Place, *texts: str) -> None:
    for index, text in enumerate(texts):
        (place.state / f"replica-{index}" / "replica.pid").write_text(text)


named("pid file: of another's process", lambda p: _pids(p, "1", "1", "1"))
named("pid file: noise", lambda p: _pids(p, "x", "", "99999999999999999999"))
named("pid file: no pid", lambda p: _pids(p, "-1", "0", "²"))


def _on_ports(place: Place, answer: bytes | None) -> None:
    for index in REPLICAS:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", int(place.environ[f"{PREFIX}{index}_PORT"])))
        _talking(place, made, answer)


named("ports: of a web server", partial(_on_ports, answer=b"HTTP/1.1 400 Bad\r\n\r\n" + bytes(300)))
