"""Deployments of a test's own: leased ports, a directory of its own, stopped when it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from cluster import REPOSITORY, config
from cluster.cli import main as cluster_command
from cluster.config import PREFIX
from cluster.config.deployment import Deployment
from cluster.tigerbeetle.waiting import wait_until
from tests.leases import addresses, free_ports, memory

#: How long a command may take before it hangs: ten times what a busy machine has taken.
TIMEOUT_S = 1200
#: The exit code of a command that Ctrl-C has ended.
INTERRUPTED = 130
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Sandbox:
    """One inventory deployed beside the user's: everything a command needs is in ``environ``."""

    inventory: str
    directory: Path
    ports: tuple[int, ...]
    overrides: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """The process environment that makes every command of this project use the sandbox."""
        return (
            os.environ
            | addresses(self.ports)
            | {
                f"{PREFIX}DATA_DIR": str(self.directory),
                f"{PREFIX}CACHE_GRID": "64MiB",
                "RECORDS_DIR": str(self.directory / "records"),
                "BACKUP_DIR": str(self.directory / "backups"),
                "BACKUP_TO": "",
                "INVENTORY": self.inventory,
            }
            | self.overrides
        )

    @property
    def state_dir(self) -> Path:
        """Where the deployment keeps its files."""
        return self.directory / Path(self.inventory).stem

    @property
    def deployment(self) -> Deployment:
        """What the commands see, for tests that call the code itself."""
        name = Path(self.inventory).stem
        return Deployment(
            name=name,
            engine="emulator" if name == "emulator" else "tigerbeetle",
            runtime="process",
            cluster=config.load(environ=self.environ).on_loopback(),
            state_dir=self.state_dir,
        )

    def run(self, *command: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run a command of this project's environment, such as ``pytest`` or ``make``."""
        program = _BIN / command[0]
        path = str(program) if program.exists() else command[0]
        return subprocess.run(
            [path, *command[1:]],
            cwd=REPOSITORY,
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``python -m cluster WORDS`` within this process: to start one is most of what it costs.

        What its own children print is not in the output.
        """
        output, errors = io.StringIO(), io.StringIO()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        with self.entered(), redirect_stdout(output), redirect_stderr(errors):
            try:
                code = cluster_command(list(words))
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            finally:
                signal.signal(signal.SIGTERM, on_sigterm)
        if code == INTERRUPTED:
            raise KeyboardInterrupt  # whoever runs the tests has pressed Ctrl-C
        said = output.getvalue(), errors.getvalue()
        return subprocess.CompletedProcess(["cluster", *words], code, *said)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process has the sandbox's environment, for what is called in it."""
        with mock.patch.dict(os.environ, self.environ, clear=True):
            yield

    @contextmanager
    def having(self, **environ: str) -> Iterator[None]:
        """Commands run with these variables, for a while."""
        before = dict(self.overrides)
        self.overrides.update(environ)
        try:
            yield
        finally:
            self.overrides.clear()
            self.overrides.update(before)

    def up(self) -> subprocess.CompletedProcess[str]:
        """Deploy, as ``make up`` does."""
        return self.pyinfra("deploy.py")

    def down(self) -> subprocess.CompletedProcess[str]:
        """Stop, as ``make down`` does."""
        return self.pyinfra("tasks.replica.stop")

    def pyinfra(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``pyinfra --yes INVENTORY ARGUMENTS``."""
        return self.run("pyinfra", "--yes", self.inventory, *arguments)

    def supervise(self, *action: str) -> None:
        """``supervisorctl ACTION``, behind the project's back; what it ends with is not checked."""
        self.run("supervisorctl", "-c", str(self.state_dir / "supervisord.conf"), *action)

    def pids(self) -> list[int]:
        """The replicas' process ids, from their pid files."""
        files = sorted(self.state_dir.glob("replica-*/replica.pid"))
        return [int(_written(file)) for file in files]

    def data_file(self, index: int) -> Path:
        """Replica ``index``'s data file."""
        return self.state_dir / f"replica-{index}" / f"0_{index}.tigerbeetle"


@contextmanager
def sandbox(
    inventory: str, replicas: int = 3, is_genuine: bool | None = None, /, **overrides: str
) -> Iterator[Sandbox]:
    """A sandbox whose replicas are stopped, and whose files are removed, at the end.

    For genuine replicas, those of processes where nothing is said, it waits until there is memory:
    see ``leases.memory``.
    """
    if is_genuine is None:
        is_genuine = Path(inventory).stem == "process"
    # A short path: supervisor's socket must fit into 108 bytes.
    with memory(replicas * is_genuine), tempfile.TemporaryDirectory(prefix="ws-") as directory:
        made = Sandbox(inventory, Path(directory), free_ports(replicas), overrides)
        try:
            yield made
        finally:
            kill_below(made.directory)


def _written(file: Path) -> str:
    """What is in a file that somebody else may be about to write."""

    def look() -> tuple[bool, str]:
        text = file.read_text().strip()
        return text != "", text

    return wait_until(look, what=f"{file.name} to be written", timeout_s=30)


def kill_below(directory: Path) -> None:
    """Kill every process that was started with a path below ``directory``, and see them gone."""
    for _ in range(10):  # what a supervisor has started meanwhile is found by the next look
        found = [p for p in psutil.process_iter(["cmdline"]) if _mentions(p, f"{directory}/")]
        if not found:
            return
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=60)
    raise AssertionError(f"still alive: {found}")


def _mentions(process: psutil.Process, path: str) -> bool:
    return (
        any(path in part for part in process.info["cmdline"] or ()) and process.pid != os.getpid()
    )
