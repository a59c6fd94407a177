"""Shell lines on a server, through this machine's own `ssh`: for what reads, such as the status.

All lines of one program share a connection to each server, which ends with the program. What
changes a server goes through pyinfra, which has a connection of its own.
"""

from __future__ import annotations

import atexit
import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from cluster.config.deployment import Deployment
from cluster.config.servers import Host, Server
from cluster.refusal import Refusal, last_line

CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 30.0
_FAILED = 255  # ssh's own exit code, never the command's
#: A shared connection outlives a program that was killed by so much.
_PERSIST_S = 15

Answer = TypeVar("Answer")


class SshError(Refusal, OSError):
    """A server that cannot be reached, or does not answer in time; ``str()`` is one line."""


NO_SSH = "ssh: expected the command on PATH. Fix: install openssh-client"


def command(server: Host, *options: str) -> list[str]:
    """The argument list that logs in to a server; what is to run there comes behind it."""
    login = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    login += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-C"]
    # As pyinfra does it: a key that has changed is refused, a new one is remembered.
    login += ["-o", "StrictHostKeyChecking=accept-new", "-p", str(server.port)]
    if server.key:
        login += ["-i", server.key, "-o", "IdentitiesOnly=yes"]
    if server.known_hosts:
        login += ["-o", f"UserKnownHostsFile={server.known_hosts}"]
    if server.user:
        login += ["-l", server.user]
    return [*login, *options, server.hostname]


def line(server: Host, script: str) -> str:
    """The shell line that runs ``script`` as root there."""
    return f"sudo -n sh -c {shlex.quote(script)}" if server.sudo else script


def run(
    server: Host, script: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a shell line as root there, whatever its exit code. Raises SshError."""
    socket = _socket(server)
    is_shared = socket.exists()
    done = _run(server, script, timeout_s, "ControlMaster=auto", f"ControlPath={socket}")
    if done.returncode == _FAILED and is_shared:  # by a server that has started anew since
        done = _run(server, script, timeout_s, "ControlPath=none")
    if done.returncode == _FAILED:
        raise SshError(
            f"{server.hostname}: expected to log in over SSH, found: {last_line(done.stderr)}. "
            "Fix: check the server, ssh_user, ssh_key and known_hosts"
        )
    return done


def _run(
    server: Host, script: str, timeout_s: float, *options: str
) -> subprocess.CompletedProcess[str]:
    chosen = [f"-o{option}" for option in (*options, f"ControlPersist={_PERSIST_S}")]
    try:
        # A file: older versions keep a pipe open for as long as the connection is shared.
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            done = subprocess.run(
                [*command(server, *chosen), line(server, script)],
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                timeout=timeout_s,
                check=False,
            )
            said.seek(0)
            done.stderr = said.read()
            return done
    except FileNotFoundError:
        raise SshError(NO_SSH) from None
    except subprocess.TimeoutExpired:
        raise SshError(
            f"{server.hostname}: expected an answer within {timeout_s:g} s, found none. "
            "Fix: check the server and the network"
        ) from None


def _socket(server: Host) -> Path:
    """Where the connection to a server is shared; a short path, of which a socket has 100 bytes."""
    return _sockets() / hashlib.sha256(repr(server).encode()).hexdigest()[:8]


@cache
def _sockets() -> Path:
    """A directory of this program's own, removed at its end, when the connections end, too."""
    directory = Path(tempfile.mkdtemp(prefix="ws-ssh-"))
    atexit.register(_end, directory)
    return directory


def _end(directory: Path) -> None:
    for socket in directory.iterdir():
        leave = ["ssh", f"-oControlPath={socket}", "-O", "exit", "nobody"]
        try:
            subprocess.run(leave, capture_output=True, timeout=CONNECT_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue  # it ends by itself, soon
    shutil.rmtree(directory, ignore_errors=True)


def on_each(deployment: Deployment, ask: Callable[[Server], Answer]) -> Mapping[int, Answer]:
    """Ask all servers together; replica index → answer."""
    with ThreadPoolExecutor(len(deployment.servers)) as together:
        answers = together.map(ask, deployment.servers)
        return {s.replica: a for s, a in zip(deployment.servers, answers, strict=True)}
