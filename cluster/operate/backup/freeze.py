"""Every data file of one moment without a stop: freeze all replicas, clone all files, thaw all.

All replicas stand still before the first file is cloned, and none is thawed before the last is: a
consistent cut, as if all had lost their power at one instant, which is what a replica is built for.
Beside each replica runs a script (``files/backup/freeze.sh``) that is asked for one step at a time.
This program may be killed, and the way to a server be cut, at any of them: the end of its input, or
else a timer beside the replica, thaws it.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Literal

from cluster import REPOSITORY
from cluster.config import PREFIX
from cluster.config.deployment import Deployment
from cluster.interruption import say, whole
from cluster.operate.backup.packing import clone_of
from cluster.refusal import Failed, Refusal, last_line
from cluster.runtimes import of, ssh

Way = Literal["freeze", "stop"]

#: What each does, in words.
WAYS: dict[Way, str] = {
    "freeze": "freeze all replicas for a moment, and clone their data files",
    "stop": "stop all replicas until their data files are packed",
}

SCRIPT = REPOSITORY / "files" / "backup" / "freeze.sh"
LIMIT = f"{PREFIX}FREEZE_LIMIT_S"
_MARK = b"freeze: "
#: `docker exec`, or a shell behind a shared connection, on a machine that is busy.
_OPEN_TIMEOUT_S = 60.0
#: Beyond the timer's own limit: for what is still in a file system's call.
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Cut:
    """When all replicas stood still: whatever was acknowledged before is in the files."""

    taken_at: datetime
    frozen_s: float | None = None  # they had stopped


def choose(asked: Way | None, cannot: Mapping[int, str]) -> tuple[Way, str]:
    """The way of a backup, and why. ``cannot``: replica index → why it cannot be frozen. Pure.

    Raises Refusal where the freeze that was asked for is not possible.
    """
    reasons = "; ".join(f"replica {index}: {why}" for index, why in sorted(cannot.items()))
    if asked == "stop":
        return "stop", "WAY=stop"
    if not cannot:
        return "freeze", "WAY=freeze" if asked else "every data file can be cloned"
    if asked == "freeze":
        raise Refusal(
            "WAY=freeze",
            expected="that every replica can be frozen, and its data file cloned",
            found=reasons,
            fix="put the data files on an XFS with room (docs/backup.md), or leave WAY out: "
            "a stop needs neither",
        )
    return "stop", reasons


def foreseen(deployment: Deployment) -> str:
    """The way that a backup of running replicas would take, and why: for a person."""
    with beside(deployment, "none") as freezer:
        way, why = choose(None, freezer.cannot)
    fix = "; to need no stop, put them on XFS (docs/backup.md)" if way == "stop" else ""
    return f"backups {WAYS[way]}, since {why}{fix}"


@contextmanager
def beside(deployment: Deployment, name: str) -> Iterator[Freezer]:
    """Sessions beside all replicas, which still run. At the end there is no clone, and all run.

    ``name`` is the backup's, for its clones. Raises SshError for a server that cannot be reached.
    """
    with ExitStack() as kept:
        freezer = Freezer(deployment)
        kept.callback(freezer.close)
        for replica in deployment.cluster.replicas:
            said = kept.enter_context(tempfile.TemporaryFile())
            freezer.sessions.append(Session(deployment, replica.index, name, said))
        until = time.monotonic() + _OPEN_TIMEOUT_S
        for session in freezer.sessions:
            answer = session.hear(until)
            if answer != "ready":
                freezer.cannot[session.index] = answer.removeprefix("cannot: ")
        yield freezer


class Session:
    """The script beside one replica, by lines."""

    def __init__(self, deployment: Deployment, index: int, name: str, said: IO[bytes]) -> None:
        runtime = of(deployment)
        given = {"data": runtime.data_file(index), "clone": clone_of(runtime, index, name)}
        given["limit"] = str(deployment.cluster.freeze_limit_s)
        given["files"] = str(1 if deployment.servers else len(deployment.cluster.replicas))
        values = "".join(f"{key}={shlex.quote(value)}\n" for key, value in given.items())
        line = runtime.beside(index, values + SCRIPT.read_text())
        command = ["sh", "-c", line]
        if deployment.servers:
            server = deployment.servers[index]
            command = [*ssh.shared(server), ssh.line(server, line)]
        self.index = index
        self._said = said
        self._heard = b""
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # a terminal's Ctrl-C is answered here, for all
        )

    def ask(self, word: str) -> None:
        """Ask for a step; one that has ended is noticed when it is heard."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):
            self._process.stdin.write(word.encode() + b"\n")

    def hear(self, until: float) -> str:
        """Its next line, without the mark; what it has died of, or that it says nothing."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        descriptor = self._process.stdout.fileno()
        while True:
            line, end, rest = self._heard.partition(b"\n")
            if end:
                self._heard = rest
                if line.startswith(_MARK):  # a login may have printed others
                    return line.removeprefix(_MARK).decode(errors="replace")
                continue
            left_s = max(until - time.monotonic(), 0)
            if not select.select([descriptor], [], [], left_s)[0]:
                return "no answer in time"
            if not (read := os.read(descriptor, 65536)):
                self._said.seek(0)
                return last_line(self._said.read().decode(errors="replace"))
            self._heard += read

    def leave(self) -> None:
        """The end of its input: it thaws the replica, and removes the clone."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def await_end(self, timeout_s: float) -> bool:
        """False where it cannot be heard any more; then nothing is left of it here."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return False
        finally:
            assert self._process.stdout is not None  # noqa: S101 - it is a pipe
            self._process.stdout.close()
        return self._process.returncode != ssh.FAILED


class Freezer:
    """The sessions beside all replicas of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.sessions: list[Session] = []
        #: Replica index → why it cannot be frozen and cloned.
        self.cannot: dict[int, str] = {}
        self._is_thawed = False

    def clone(self) -> Cut:
        """Freeze all, clone all, thaw all. Raises Failed for what is not of one moment."""
        until = time.monotonic() + self.deployment.cluster.freeze_limit_s
        self.step("arm", "armed", until)
        taken_at, begin = datetime.now(UTC), time.monotonic()
        self.step("freeze", "frozen", until)
        self.step("clone", "cloned", until)
        self.step("thaw", "thawed", until)
        self._is_thawed = True
        return Cut(taken_at, round(time.monotonic() - begin, 3))

    def step(self, word: str, answer: str, until: float) -> None:
        """Ask all for a step, and await it of all. Raises Failed."""
        for session in self.sessions:
            session.ask(word)
        for session in self.sessions:
            if (found := session.hear(until)) != answer:
                raise Failed(
                    f"replica {session.index}: expected it {answer} within "
                    f"{self.deployment.cluster.freeze_limit_s} s, found: "
                    f"{found.removeprefix('broken: ')}; files of different moments are no backup. "
                    f"Fix: repeat; if it happens again, raise {LIMIT}, or WAY=stop"
                )

    def close(self) -> None:
        """Thaw whatever is frozen, remove every clone. Nothing to do the second time."""
        with whole("thawing the replicas"):
            sessions, self.sessions = self.sessions, []
            for session in sessions:
                session.leave()
            limit_s = self.deployment.cluster.freeze_limit_s
            until = time.monotonic() + limit_s + _END_TIMEOUT_S
            for session in sessions:
                if session.await_end(max(until - time.monotonic(), 0)):
                    continue
                how = (
                    "its clone may be left there: the next backup removes it"
                    if self._is_thawed
                    else f"if it was frozen, it has thawed by itself {limit_s} s later"
                )
                say(f"replica {session.index}: its server could not be told the end; {how}")
