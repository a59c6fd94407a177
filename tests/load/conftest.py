"""An emulator process of the suite's own, and a directory for its runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster import REPOSITORY
from tests.leases import free_ports

CLUSTER_ID = 7
#: How long a program may take before it hangs: ten times what a busy machine has taken.
TIMEOUT_S = 600
#: A load without an end of its own: the test ends it, when it has seen what it waited for.
ENDLESS_S = 3600


@dataclass
class Server:
    """One emulator process: started, killed and started again with the same data file."""

    directory: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data_file(self) -> Path:
        return self.directory / "0_0.tigerbeetle"

    def format(self) -> None:
        identity = [f"--cluster={CLUSTER_ID}", "--replica=0", "--replica-count=1"]
        self._run(["format", *identity, str(self.data_file)])

    def start(self) -> None:
        """Returns when it listens; the ``yield`` to a client is then at most a reconnect."""
        command = ["start", f"--addresses={self.address}", *self.options, str(self.data_file)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tigerbeetle_emulator", *command],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if "listening on" in line:
                return
        raise AssertionError("the emulator ended: " + "".join(seen))

    def kill(self) -> None:
        """SIGKILL: nothing is said goodbye to."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(TIMEOUT_S)
            if self.process.stderr:
                self.process.stderr.close()
            self.process = None

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def _run(self, arguments: list[str]) -> None:
        subprocess.run(
            [sys.executable, "-m", "tigerbeetle_emulator", *arguments],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            timeout=TIMEOUT_S,
        )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An emulator shared by the suite: tests must leave it running."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.format()
    made.start()
    yield made
    made.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """An emulator that the test may kill, freeze and tamper with."""
    made = Server(tmp_path)
    made.format()
    made.start()
    yield made
    made.kill()


@dataclass(frozen=True)
class Program:
    """``python -m cluster load`` and its kin as a person runs them; the runs are kept apart."""

    runs: Path

    def __call__(
        self, *arguments: str, command: str = "load", timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        process = self.spawn(*arguments, command=command)
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def spawn(self, *arguments: str, command: str = "load") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cluster", command, *arguments],
            cwd=REPOSITORY,
            env=os.environ | {"LOADTESTS_RUNS": str(self.runs)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C can reach all of it, as at a terminal
        )

    def load(
        self, server: Server, *more: str, users: int = 20, seconds: float = 6
    ) -> subprocess.CompletedProcess[str]:
        return self(*load_options(server, users, seconds), *more)

    @property
    def newest(self) -> Path:
        return max(self.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns).parent


def load_options(
    server: Server, users: int = 20, seconds: float = ENDLESS_S, think_s: float = 0.05
) -> list[str]:
    """Users that think leave the machine to other tests; without, they press on."""
    return [
        *("--users", str(users), "--run-time", str(seconds), "--warmup-s", "1"),
        *("--addresses", server.address, "--cluster-id", str(CLUSTER_ID)),
        *("--engine", "emulator", "--wallets", "50", "--think-s", str(think_s)),
    ]


@dataclass(frozen=True)
class Finished:
    """A run of two processes that is over, with what it printed."""

    program: Program
    done: subprocess.CompletedProcess[str]

    @property
    def run(self) -> Path:
        return self.program.newest


@pytest.fixture(scope="session")
def finished(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One good run for all tests that only look at one; they must not change it."""
    program = Program(tmp_path_factory.mktemp("finished") / "runs")
    return Finished(program, program.load(server, "--processes", "2", seconds=8))


@pytest.fixture
def copied(finished: Finished, program: Program) -> Path:
    """A copy of that run, to be tampered with."""
    target = program.runs / finished.run.name
    shutil.copytree(finished.run, target)
    return target


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    runs = tmp_path / "runs"
    monkeypatch.setenv("LOADTESTS_RUNS", str(runs))
    return Program(runs)
