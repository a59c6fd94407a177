"""Whatever is interrupted, repeating it ends in a working cluster or a clear refusal.

No interruption loses data.

The commands are killed with SIGKILL, as a dying machine would, or interrupted as a person does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from cluster import REPOSITORY
from cluster.runtimes.container import HELPER_LABEL
from cluster.tigerbeetle.canary import ACCOUNT_CREDIT
from tests.docker.sandbox import DockerSandbox, docker
from tests.operate.interruption import (
    ROW,
    assert_runs_or_says_so,
    assert_status_tells,
    change_a_setting,
    interrupted,
    matrix,
    python,
)

pytestmark = [pytest.mark.docker]

#: What `init` has just said when it is killed: one row for each of its steps.
POINTS = [
    pytest.param("(built successfully|is up to date)", marks=pytest.mark.long),
    pytest.param("Network .*Created", marks=pytest.mark.long),
    pytest.param("2: formatted", marks=pytest.mark.long),  # all formatted, none renamed
    pytest.param("formatted successfully", marks=pytest.mark.long),
    pytest.param("Container .*Started", marks=pytest.mark.long),
]

#: Command → what it says when a step begins that stops replicas.
STEPS = {
    "backup": ["| Stop the replicas", "| Pack the data files", "| Start the replicas"],
    "restart": ["restart: replica 0", "restart: replica 2"],
    "up": ["new settings: replica 0"],
}
HOW = [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1), (signal.SIGKILL, 1)]

COUNT = """
import sys, tigerbeetle as tb
with tb.ClientSync(cluster_id=0, replica_addresses=sys.argv[1]) as client:
    print(client.lookup_accounts([int(sys.argv[2])])[0].credits_posted)
"""


def killed_at(sandbox: DockerSandbox, action: str, point: str, **environ: str) -> None:
    """Run ``compose_tb ACTION`` and kill it, and what it started, once it says ``point``."""
    with sandbox.having(**environ):
        settings = sandbox.environ
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "compose-tb", action],
        cwd=REPOSITORY,
        text=True,
        env=settings | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    with process:
        for line in process.stdout:
            said += line
            if re.search(point, line):
                break
        os.killpg(process.pid, signal.SIGKILL)
    assert re.search(point, said), said


def commits(sandbox: DockerSandbox) -> bool:
    """By a status of its own, not by the command that was repeated."""
    return sandbox.call("status").returncode == 0


def alive(sandbox: DockerSandbox) -> list[str]:
    """The replicas whose containers run, as the engine tells."""
    found = docker("ps", "--format={{.Names}}", "--filter=status=running").stdout.split()
    return sorted({*found} & {*sandbox.names})


def canary_transfers(sandbox: DockerSandbox) -> int:
    """How many canary transfers the ledger holds."""
    published = ",".join(f"127.0.0.1:{port}" for port in sandbox.ports)
    done = sandbox.run("python", "-c", COUNT, published, str(ACCOUNT_CREDIT))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_init_is_finished_by_repeating_it_or_says_how(
    sandbox: DockerSandbox, point: str
) -> None:
    killed_at(sandbox, "init", point)
    done = sandbox.call("compose-tb", "init")
    if done.returncode != 0:
        # The killed one had formatted: what is there is data, and init would remove it.
        assert done.returncode == 2
        assert "Fix: make compose-tb-up to start what is there" in done.stderr
        done = sandbox.call("compose-tb", "up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert commits(sandbox)


def test_a_lost_file_is_never_formatted_anew_and_a_format_killed_while_renaming_is_finished(
    sandbox: DockerSandbox,
) -> None:
    assert sandbox.call("compose-tb", "format").returncode == 0
    whole = sandbox.in_volume(0, "stat -c '%i %Y' /data/0_0.tigerbeetle").stdout

    assert sandbox.in_volume(1, "mv /data/0_1.tigerbeetle /data/aside").returncode == 0
    for command in ("format", "up"):
        refused = sandbox.call("compose-tb", command)
        assert refused.returncode == 2
        assert "replica 1: expected a data file" in refused.stderr
    assert sandbox.pyinfra("deploy.py").returncode != 0
    partial = "/data/0_1.tigerbeetle.partial"
    assert sandbox.in_volume(1, f"ls /data && mv /data/aside {partial}").stdout == "aside\n"

    name = "/data/0_2.tigerbeetle"
    assert sandbox.in_volume(2, f"mv {name} {name}.partial").returncode == 0
    refused = sandbox.call("compose-tb", "up")
    assert "Fix: make compose-tb-format" in refused.stderr
    done = sandbox.call("compose-tb", "format")
    assert done.returncode == 0, done.stderr
    assert "formatted: cluster" not in done.stdout + done.stderr  # finished, not done again
    assert sandbox.in_volume(0, "stat -c '%i %Y' /data/0_0.tigerbeetle").stdout == whole
    assert sandbox.call("compose-tb", "up").returncode == 0
    assert commits(sandbox)


@pytest.mark.parametrize(ROW, matrix(STEPS, (), HOW))
def test_the_replicas_run_again_or_the_last_line_says_that_they_do_not(
    running: DockerSandbox, command: str, step: str, number: signal.Signals, times: int
) -> None:
    before = canary_transfers(running)
    if command == "up":
        change_a_setting(running)
    words = python(*([command] if command == "backup" else ["compose-tb", command]))
    code, said = interrupted(running, words, step, number, times)
    if number == signal.SIGKILL:
        assert_status_tells(running)
    else:
        assert_runs_or_says_so(running, code, said, alive(running))
    helper = f"--filter=label={HELPER_LABEL}={running.names[0]}"
    assert docker("ps", "--all", "--quiet", helper).stdout == ""
    assert running.call("compose-tb", "up").returncode == 0  # it finishes a rollout, too
    assert canary_transfers(running) > before


@pytest.mark.long
def test_no_interruption_of_a_living_cluster_loses_a_transfer(sandbox: DockerSandbox) -> None:
    assert sandbox.call("compose-tb", "init").returncode == 0
    before = canary_transfers(sandbox)
    killed_at(sandbox, "restart", "Container .*Starting")
    killed_at(sandbox, "down", "Container .*Stopping")
    assert sandbox.call("compose-tb", "init").returncode == 2  # not confirmed
    # The killed `down` may have stopped none yet: then `up` has nothing to say but that it commits.
    killed_at(sandbox, "up", "Container .*(Created|Started|Running|Recreated)|canary committed")
    done = sandbox.call("compose-tb", "up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert canary_transfers(sandbox) > before


@pytest.mark.long
def test_a_confirmed_init_that_is_killed_while_it_removes_says_so_or_goes_on(
    sandbox: DockerSandbox,
) -> None:
    assert sandbox.call("compose-tb", "init").returncode == 0
    killed_at(sandbox, "init", "Volume .*Remov", CONFIRM="yes")
    refused = sandbox.call("compose-tb", "up")
    assert refused.returncode in (0, 2)
    if refused.returncode == 2:
        assert re.search("expected (a data file|formatted data files)", refused.stderr)
    with sandbox.having(CONFIRM="yes"):
        done = sandbox.call("compose-tb", "init")
    assert done.returncode == 0, done.stdout + done.stderr
    assert commits(sandbox)
