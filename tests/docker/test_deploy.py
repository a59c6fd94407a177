"""What a deploy makes in Docker; and that a second one touches nothing."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.config import PREFIX
from tests.docker.onlookers import assert_every_check_passes
from tests.docker.sandbox import DockerSandbox, docker

pytestmark = [pytest.mark.docker]

BIN = Path(sys.executable).parent
WAIT = "Wait until the cluster commits | Wait until the cluster commits"


@pytest.mark.long
def test_every_infra_check_passes_where_the_engine_may_not_raise_limits(
    deployed: DockerSandbox,
) -> None:
    """The manual's cluster is checked by tests/docker/test_seed_commands.py."""
    assert_every_check_passes(deployed)


def test_a_second_deploy_or_make_up_changes_and_restarts_nothing(deployed: DockerSandbox) -> None:
    before = deployed.lives()
    done = deployed.pyinfra("deploy.py", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    operations = json.loads(done.stdout)["results"]["operations"]
    assert [operation["name"] for operation in operations if operation["success"]] == [WAIT]
    assert deployed.lives() == before
    up = deployed.make("compose-tb-up")
    assert up.returncode == 0, up.stderr[-4000:]
    assert deployed.lives() == before


def test_starting_what_runs_is_left_to_its_own_runtime(deployed: DockerSandbox) -> None:
    """It once wrote a supervisor's configuration beside the containers, and started processes."""
    before = deployed.lives()
    done = deployed.pyinfra("tasks.replica.start")
    assert done.returncode == 0, done.stderr[-4000:]
    assert deployed.lives() == before
    assert not (deployed.state_dir / "supervisord.conf").exists()


def test_status_is_healthy_and_says_which_engine(deployed: DockerSandbox) -> None:
    done = deployed.run("python", "-m", "cluster", "status", "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert status["verdict"] == "healthy"
    genuine = not status["engine_label"].startswith("EMULATOR")
    assert genuine == ("EMULATOR" not in docker("logs", deployed.names[0]).stderr)


def test_logs_print_every_replica_behind_its_name(deployed: DockerSandbox) -> None:
    done = deployed.run("python", "-m", "cluster", "logs")
    assert done.returncode == 0
    for index in range(3):
        assert f"replica-{index} | " in done.stdout


@pytest.mark.long
def test_a_changed_setting_restarts_one_replica_at_a_time_and_a_dry_run_none(
    deployed: DockerSandbox,
) -> None:
    before = deployed.lives()
    size = deployed.environ[f"{PREFIX}CACHE_GRID"]
    deployed.overrides[f"{PREFIX}CACHE_GRID"] = "80MiB" if size == "64MiB" else "64MiB"
    dry = deployed.run("pyinfra", deployed.inventory, "deploy.py", "--dry")
    assert dry.returncode == 0, dry.stderr[-4000:]
    assert deployed.lives() == before
    done = deployed.up()
    assert done.returncode == 0, done.stderr[-4000:]
    after = deployed.lives()
    assert set(after).isdisjoint(before)
    said = done.stdout + done.stderr
    # Whichever order they took turns in: the primary is last, and it may be any of them.
    waits = sorted(said.index(f"{name}  Started") for name in deployed.names)
    by_start = sorted(range(3), key=lambda index: after[index][1])
    assert by_start == [int(i) for i in re.findall(r"new settings: replica (\d) \(", said)]
    commits = [i for i in range(len(said)) if said.startswith("canary committed", i)]
    for earlier, later in pairwise(waits):
        assert any(earlier < commit < later for commit in commits)


@pytest.mark.long
def test_a_stopped_cluster_starts_again_with_its_data_though_its_image_is_not_here_yet(
    sandbox: DockerSandbox,
) -> None:
    """As with a new release: until its image is built, nothing can look into the volumes."""
    assert sandbox.up().returncode == 0
    marks = [sandbox.in_volume(i, "stat -c %i /data/*.tigerbeetle").stdout for i in range(3)]
    assert all(mark.strip() for mark in marks)
    assert sandbox.down().returncode == 0
    assert sandbox.down().returncode == 0  # stopping what is stopped is no error
    assert docker("inspect", sandbox.names[0]).returncode != 0
    assert sandbox.call("status").returncode == 3
    other = f"{sandbox.project}-emulator-custom"
    try:
        with sandbox.having(**{f"{PREFIX}CUSTOM_IMAGE": other}):
            done = sandbox.up()
        assert done.returncode == 0, done.stderr[-4000:]
        assert {sandbox.inspect(i)["Config"]["Image"].split(":")[0] for i in range(3)} == {other}
        again = [sandbox.in_volume(i, "stat -c %i /data/*.tigerbeetle").stdout for i in range(3)]
        assert again == marks
    finally:
        docker("rm", "--force", *sandbox.names)
        docker("rmi", *docker("images", "--quiet", other).stdout.split()[:1], "--force")


@pytest.mark.long
def test_a_living_cluster_whose_image_is_not_here_yet_is_not_new(sandbox: DockerSandbox) -> None:
    assert sandbox.up().returncode == 0
    before = sandbox.lives()
    other = f"{sandbox.project}-emulator-custom"
    try:
        with sandbox.having(**{f"{PREFIX}CUSTOM_IMAGE": other}):
            done = sandbox.up()
        assert done.returncode == 0, done.stderr[-4000:]
        assert set(before).isdisjoint(sandbox.lives())
    finally:
        docker("rm", "--force", *sandbox.names)
        docker("rmi", *docker("images", "--quiet", other).stdout.split()[:1], "--force")
