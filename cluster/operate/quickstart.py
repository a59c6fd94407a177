"""``make quickstart``: deploy, verify, load, audit and report, on the best engine that is here.

Any step that fails ends it with that step's name and what to do. The cluster is left running;
Ctrl-C, or a failure to deploy, stops what this run has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Column, Table

from cluster import REPOSITORY, config
from cluster.checks import rules
from cluster.checks.observe import observe
from cluster.config import Cluster, inventory, kept
from cluster.config.deployment import Deployment
from cluster.interruption import whole
from cluster.operate import last_word, phase
from cluster.refusal import Failed, Refusal, last_line
from cluster.runtimes import image, of
from cluster.tigerbeetle import binary

USERS = 50
DURATION_S = 20
#: Deploying faults in memory (2 minutes at most), verifying takes seconds; then it hangs.
STEP_TIMEOUT_S = 300
PROGRESS_S = 10.0
_TAIL_LINES = 25
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Choice:
    """An inventory file and why it was taken."""

    inventory: str
    reason: str


@dataclass(frozen=True)
class Step:
    """One command of the quickstart, and what to do when it fails."""

    name: str
    command: list[str]
    advice: str


class StepFailed(Exception):  # noqa: N818 - reads as what happened
    """A step ended non-zero or ran out of time."""

    def __init__(self, step: Step, reason: str, log: Path) -> None:
        self.step, self.reason, self.log = step, reason, log
        super().__init__(f"{step.name}: {reason}")


def docker_refusal(cluster: Cluster) -> str | None:
    """Why the replicas cannot run in Docker here and now; None when they can.

    The image, or its base, must be here or in a registry that answers. A setting that only needs
    to be corrected is a refusal too: nothing is guessed.
    """
    try:
        deployment = inventory.read("inventories/local.py")
        rules.check_all(deployment, observe(deployment))
        if not image.is_obtainable(cluster):
            return f"no image {image.base(cluster)}, here or in its registry"
    except Refusal as error:
        return str(error)
    return None


def choose(
    cluster: Cluster, server: Path | None, memory_available: int, refused: str | None
) -> Choice:
    """Docker where it can run the replicas, else genuine processes where a server and the memory
    for it are there, else the emulator. ``refused`` says why Docker cannot, and is told.
    """
    if refused is None:
        return Choice("inventories/local.py", f"Docker is ready, and has {image.base(cluster)}")
    needed = len(cluster.replicas) * config.memory_bytes(cluster)
    if server is None:
        why = f"no tigerbeetle server in TIGERBEETLE_BIN or on PATH; not in Docker: {refused}"
        return Choice("inventories/emulator.py", why)
    if memory_available < needed:
        why = (
            f"{server} is here, but {len(cluster.replicas)} replicas need "
            f"{needed / 1024**3:.1f} GiB and {memory_available / 1024**3:.1f} GiB are free; "
            f"not in Docker: {refused}"
        )
        return Choice("inventories/emulator.py", why)
    found, _, _ = refused.partition(". Fix: ")  # nothing has to be mended
    why = f"found a genuine server: {server}; not in Docker: {found}"
    return Choice("inventories/process.py", why)


def steps(chosen: str, run_id: str, junit: Path, duration_s: int = DURATION_S) -> list[Step]:
    """The five commands, as a person would type them."""
    named = f"INVENTORY={shlex.quote(chosen)}"
    pytest, locust = [str(_BIN / "pytest"), "tests/infra"], [str(_BIN / "locust"), "--headless"]
    ours = [sys.executable, "-m", "cluster"]
    load = ["--locustfile=loadtests/locustfile.py", f"--users={USERS}", f"--run-time={duration_s}s"]
    return [
        Step(
            "deploy",
            _pyinfra(chosen, "deploy.py"),
            f"correct what the last line names, then: make up {named}",
        ),
        Step(
            "verify",
            [*pytest, f"--inventory={chosen}", f"--junit-xml={junit}"],
            f"look with: make status {named}; make logs {named}",
        ),
        Step(
            "load",
            [*locust, *load, f"--run-id={run_id}"],
            f"look with: make logs {named}; repeat with: make load {named}",
        ),
        Step(
            "audit",
            [*ours, "audit", f"--run={run_id}"],
            f"a failed audit is a finding: keep the data, read runs/{run_id}/audit.json",
        ),
        Step(
            "report",
            [*ours, "report", f"--run={run_id}"],
            f"repeat with: make report {named} RUN={run_id}",
        ),
    ]


def _pyinfra(chosen: str, what: str) -> list[str]:
    return [str(_BIN / "pyinfra"), "--yes", chosen, what]


def run_step(
    step: Step,
    environ: dict[str, str],
    log: Path,
    on_progress: Callable[[str], None] = lambda _: None,
) -> float:
    """Run one step with its output in ``log``; seconds taken. Raises StepFailed.

    ``on_progress`` is told now and then what it said last.
    """
    begun = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            step.command,
            cwd=REPOSITORY,
            env=environ,
            text=True,
            start_new_session=True,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            while (code := _ended(process)) is None:
                if (took := time.monotonic() - begun) > STEP_TIMEOUT_S:
                    raise StepFailed(step, f"no end within {STEP_TIMEOUT_S} s", log)
                last = last_line(log.read_text(errors="replace"))
                on_progress(f"{took:.0f} s: {' '.join(last.split())}")  # locust's are 180 wide
        finally:
            phase.end(process)  # never the replicas: they have left its session
    if code != 0:
        raise StepFailed(step, f"exit code {code}", log)
    return time.monotonic() - begun


def _ended(process: subprocess.Popen[str]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(min(PROGRESS_S, STEP_TIMEOUT_S))
    return None


def why(said: str) -> str:
    """The line that says why a step failed: a refusal's, else an error's, else its last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    known = ([line for line in lines if mark in line] for mark in ("Fix: ", "rror", ""))
    return next((found[-1] for found in known if found), "it said nothing")


def passed_checks(junit: Path) -> int:
    """How many rows of tests/infra passed, from pytest's own record; a skipped one did not."""
    suite = ET.parse(junit).getroot().find("testsuite")  # noqa: S314 - our own file
    if suite is None:
        return 0
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    return counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]


def summary(deployment: Deployment, run: Path, checks: int, wall_s: float) -> Table:
    """What a person wants to know at the end."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    audit: dict[str, Any] = json.loads((run / "audit.json").read_text())
    wide = Column(overflow="fold")  # a path stays whole
    table = Table("", wide, title="wallet-service quickstart", show_header=False)
    note = " (says nothing of TigerBeetle's)" if deployment.is_emulator else ""
    rows = {
        "engine": deployment.label,
        "checks passed": str(checks),
        "transfers acknowledged": f"{result['transfers_acknowledged']:,}",
        "throughput": f"{result['actions_per_s']:,.0f} actions/s{note}",
        "audit": audit["verdict"],
        "report": os.path.relpath(run / "report.html"),
        "wall time": f"{wall_s:.0f} s",
    }
    for row in rows.items():
        table.add_row(*row)
    return table


@click.command()
@click.option("--inventory", "named", help="Instead of choosing.")
@click.option("--duration-s", default=DURATION_S, help="Of the load.")
def main(named: str | None, duration_s: int) -> int:
    """Deploy, verify, load, audit and report, on the best engine that is here.

    Exit codes: 0 all passed, 1 a step failed, 2 bad input, 130 interrupted.
    """
    console = Console(highlight=False)
    cluster = config.load()
    if named:
        choice = Choice(named, "INVENTORY was given")
    else:
        server, memory = binary.find_tigerbeetle(cluster), psutil.virtual_memory().available
        choice = choose(cluster, server, memory, docker_refusal(cluster))
    deployment = inventory.read(choice.inventory)
    console.print(f"engine: [bold]{deployment.label}[/] — {choice.reason}", soft_wrap=True)
    was_running = of(deployment).states() is not None
    run_id = time.strftime("quickstart-%Y%m%d-%H%M%S")
    logs = deployment.state_dir.parent / "quickstart" / run_id
    logs.mkdir(parents=True)
    planned = steps(choice.inventory, run_id, logs / "verify.xml", duration_s)
    return _run(console, planned, choice.inventory, deployment, logs, keep=was_running)


def _run(
    console: Console,
    planned: list[Step],
    chosen: str,
    deployment: Deployment,
    logs: Path,
    *,
    keep: bool,
) -> int:
    """Run the steps, each logged under ``logs``, whose name is the load's run id.

    ``keep`` says that the cluster ran before, and so stays whatever happens.
    """
    begun = time.monotonic()
    environ = os.environ | {"INVENTORY": chosen}
    try:
        for number, step in enumerate(planned, 1):
            console.print(f"\\[{number}/{len(planned)}] {step.name} … ", end="")
            shown: list[str] = []

            def show(text: str, shown: list[str] = shown) -> None:
                shown.append(text)
                console.print(f"\n      {text}", end="", markup=False, soft_wrap=True)

            seconds = run_step(step, environ, logs / f"{step.name}.log", show)
            console.print("\n      " * bool(shown) + f"[green]ok[/] ({seconds:.0f} s)")
    except StepFailed as failed:
        console.print("[red]failed")
        said = failed.log.read_text(errors="replace")
        for line in said.splitlines()[-_TAIL_LINES:]:
            console.print(f"    {line}", markup=False, soft_wrap=True)
        if failed.step.name == "deploy" and not keep:
            _stop(console, chosen, environ)
        told = f"all it said: {failed.log}\nwhat to do: {failed.step.advice}"
        last = f"step {failed.step.name} failed: {failed.reason}: {why(said)}"
        console.print(f"{told}\n{last}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("[yellow]interrupted")
        if keep:
            with last_word.said(deployment):
                raise
        _stop(console, chosen, environ)
        return 130
    run = kept.runs() / logs.name
    checks = passed_checks(logs / "verify.xml")
    console.print(summary(deployment, run, checks, time.monotonic() - begun))
    console.print(f"The cluster keeps running at {config.addresses(deployment.listed)}")
    console.print(f"stop it with: make down INVENTORY={shlex.quote(chosen)}")
    return 0


def _stop(console: Console, chosen: str, environ: dict[str, str]) -> None:
    """Stop what this run has started; the data stays."""
    console.print("stopping what was started …")
    try:
        with whole("stopping what was started"):
            phase.run(chosen, "tasks.replica.stop", environ=environ, quiet=True)
    except Failed:
        console.print(f"could not stop it; try: make down INVENTORY={shlex.quote(chosen)}")
