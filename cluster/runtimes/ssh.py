"""Shell lines on a server, through this machine's own `ssh`: one connection to each, for all.

The first who needs a server logs in. The connection then stays for whoever comes next, in this
program and in others of the same user, until nobody has used it for a minute: a server that limits
logins sees one a command, or none. Aliases, jump hosts and agents work as they do for `ssh` itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cluster.config.deployment import Deployment
from cluster.config.servers import Host, Server
from cluster.refusal import Refusal, last_line

CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 30.0
FAILED = 255  # ssh's own exit code, never the command's
#: How long the connection waits for the next who needs it.
PERSIST_S = 60
#: A login that has failed is not tried again at once, by one program: a limit counts each attempt,
#: and `ufw limit` forgives after half a minute with fewer than six.
RETRY_S = 10.0
#: Said before a command's own output, so that what a login prints is told from it.
MARK = "wallet-service: output follows"

Answer = TypeVar("Answer")
_failed: dict[Path, tuple[float, SshError]] = {}  # at time.monotonic()


class SshError(Refusal, OSError):
    """A server that cannot be reached, or does not answer in time; ``str()`` is one line."""


class RefusedBySshError(SshError):
    """A server that is there, and does not let us in. Whether its replica is well is not known."""


#: What to do about a server that is there, and takes no connection.
PATIENCE = (
    "wait a minute, then look whether sshd runs there: it or a firewall may limit connections "
    "(MaxStartups, PerSourcePenalties, `ufw limit`); raise that limit for this machine. The "
    "replica may be well: repair nothing"
)
NO_SSH = "ssh: expected the command on PATH. Fix: install openssh-client"
_UNREACHABLE = re.compile(
    r"timed out|no route to host|network is unreachable|host is down|could not resolve"
    r"|name or service not known|failure in name resolution",
    re.IGNORECASE,
)
#: What ssh says → what to do about it; the first that is found counts.
_FIXES = {
    r"Host key verification failed|IDENTIFICATION HAS CHANGED|host key is known": (
        "compare the server's key with what it should be, then correct known_hosts"
    ),
    r"Permission denied|Too many authentication failures": (
        "check ssh_user and ssh_key; a key with a passphrase must be in an agent (ssh-add)"
    ),
    r"refused|reset by|closed by|Exceeded MaxStartups|Not allowed at this time": PATIENCE,
}


def failure(host: Host, said: str) -> SshError:
    """What ssh has said of its own failure, by kind. Pure."""
    found = last_line(said).rstrip(".")
    if _UNREACHABLE.search(said):
        fix = "check the server, the network, and its name or address in the inventory"
        return SshError(f"{host.hostname}: expected to log in over SSH, found: {found}. Fix: {fix}")
    fixes = (fix for words, fix in _FIXES.items() if re.search(words, said))
    fix = next(fixes, "try it by hand: ssh " + host.hostname)
    return RefusedBySshError(f"{host.hostname}: refused by SSH, found: {found}. Fix: {fix}")


def command(server: Host, *options: str) -> list[str]:
    """The argument list that logs in to a server; what is to run there comes behind it."""
    login = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    login += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-C"]
    # A key that has changed is refused, a new one is remembered.
    login += ["-o", "StrictHostKeyChecking=accept-new", "-p", str(server.port)]
    if server.config:
        login += ["-F", server.config]
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


def shared(server: Host, *options: str) -> list[str]:
    """The argument list that goes through the shared connection, which is there now.

    Where it has broken since, or may carry no further session, `ssh` logs in by itself. Raises
    SshError.
    """
    place = connect(server)
    own = ["-oControlMaster=no", f"-oControlPath={place}", "-oClearAllForwardings=yes"]
    return command(server, *own, *options)


def asking(server: Host, verb: str, *options: str) -> list[str]:
    """The argument list that asks the shared connection itself, as ``ssh -O`` does.

    An alias' own forwards would be asked for, too. Raises SshError.
    """
    return ["ssh", "-Fnone", f"-oControlPath={connect(server)}", "-O", verb, *options, "nobody"]


def run(
    server: Host, script: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a shell line as root there, whatever its exit code. Raises SshError."""
    marked = f"echo {shlex.quote(MARK)}; {line(server, script)}"
    done = _run(server, [*shared(server), marked], timeout_s)
    if done.returncode == FAILED:
        raise failure(server, done.stderr)
    _, mark, done.stdout = done.stdout.partition(f"{MARK}\n")
    if not mark:
        raise unspoken(server, done.stderr)
    return done


def unspoken(server: Host, said: str) -> SshError:
    """Of a login shell that runs no command."""
    return SshError(
        f"{server.hostname}: expected a login shell that runs commands, found: {last_line(said)}. "
        "Fix: give its user one, and see what its profile ends early"
    )


def connect(server: Host) -> Path:
    """Log in, unless the shared connection is there; its socket. Raises SshError."""
    place = _sockets() / _name(server)
    if _is_alive(place):
        return place
    with _alone(place.with_suffix(".lock")):
        if _is_alive(place):  # another has logged in while we waited
            return place
        at, failed = _failed.get(place, (-RETRY_S, None))
        if failed and time.monotonic() - at < RETRY_S:
            raise type(failed)(str(failed))
        place.unlink(missing_ok=True)
        try:
            _log_in(server, f"-oControlPath={place}")
        except SshError as error:
            _failed[place] = time.monotonic(), error
            raise
    return place


def prove(server: Host) -> None:
    """Log in anew, whatever is shared: SSH lets us in now. Raises SshError."""
    done = _run(server, [*command(server, "-oControlPath=none"), "true"], 3.0 * CONNECT_TIMEOUT_S)
    if done.returncode == FAILED:
        raise failure(server, done.stderr)


def on_each(deployment: Deployment, ask: Callable[[Server], Answer]) -> Mapping[int, Answer]:
    """Ask all servers together; replica index → answer."""
    with ThreadPoolExecutor(len(deployment.servers)) as together:
        answers = together.map(ask, deployment.servers)
        return {s.replica: a for s, a in zip(deployment.servers, answers, strict=True)}


def _log_in(server: Host, path: str) -> None:
    """Make the shared connection: a process of its own, which outlives this program."""
    options = ["-oControlMaster=yes", path, f"-oControlPersist={PERSIST_S}"]
    alone = ["-oClearAllForwardings=yes", "-oRemoteCommand=none", "-fN"]
    done = _run(server, command(server, *options, *alone), ANSWER_TIMEOUT_S)
    if done.returncode:
        raise failure(server, done.stderr)


def _run(server: Host, arguments: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run ssh; what it and the command there say. Raises SshError without an answer in time."""
    try:
        # A file: older versions keep a pipe open for as long as the connection is shared.
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            done = subprocess.run(
                arguments,
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


def _is_alive(place: Path) -> bool:
    """Whoever holds the connection takes part in it: a socket that nobody holds refuses."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(place))
        except OSError:
            return False
        return True


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One logs in at a time, of all threads and programs; the kernel frees what is killed."""
    with place.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)  # and not in flock, where greenlets would wait for one another
        yield


def _name(server: Host) -> str:
    """By how it is reached. A short one: a socket's path has 100 bytes."""
    login = (server.hostname, server.port, server.user, server.key, server.known_hosts)
    return hashlib.sha256(repr((*login, server.config)).encode()).hexdigest()[:8]


def _sockets() -> Path:
    """The directory of this user's connections: whoever may use them is root there."""
    place = Path(tempfile.gettempdir()) / f"ws-ssh-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if found.st_uid != os.getuid() or found.st_mode != stat.S_IFDIR | 0o700:
        raise Refusal(
            str(place),
            expected="a directory of this user's alone, with mode 700",
            found=f"mode {stat.filemode(found.st_mode)}, owner {found.st_uid}",
            fix="remove it, or name another place in TMPDIR",
        )
    return place
