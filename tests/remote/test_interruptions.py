"""A deploy may end at any step, by Ctrl-C or with its connections: repeated, it converges.

With the emulator: what is in question is the order of the steps, not replication.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import REPOSITORY
from tests.remote.bed import Bed
from tests.remote.site import Site, changes, said

_STEP = re.compile(r"Starting (?:run once )?operation: (.*)")
_PYINFRA = str(Path(sys.executable).parent / "pyinfra")
#: The operations of a first deploy with a unit and a firewall; a test below counts them.
STEPS = 22

pytestmark = [pytest.mark.remote, pytest.mark.long]


@pytest.fixture
def site(bed: Bed) -> Site:
    return Site(bed).with_emulator()


def interrupt(site: Site, step: int, how: str) -> None:
    """Deploy, and end it when the ``step``-th operation has begun."""
    _, *arguments = site.up_command(bootstrap=True)
    began, printed = 0, list[str]()
    with subprocess.Popen(
        [_PYINFRA, *arguments],
        cwd=REPOSITORY,
        env=site.environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                printed.append(line)
                if _STEP.search(line):
                    began += 1
                    if began == step + 1:
                        _end(site, process, how)
            process.wait(timeout=600)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert began > step, f"ended before its step {step}: {''.join(printed)[-4000:]}"


def _end(site: Site, process: subprocess.Popen[str], how: str) -> None:
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
        return
    for host in site.bed.hosts:  # every connection that is open; new ones get in again
        host.inside("pkill -f '^sshd: (root|admin)'")


def assert_converges(site: Site) -> None:
    """Repeated, the deploy ends well; and again, it changes nothing."""
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(site.up()) == []
    for index, host in enumerate(site.bed.hosts):
        assert host.read(f"systemctl is-active tigerbeetle-{index}") == "active\n"
        assert host.read("find /var/lib/tigerbeetle -name '*.partial' -o -name bootstrapping") == ""


@pytest.mark.parametrize("how", ["ctrl-c", "ssh-cut"])
def test_a_deploy_that_ends_half_way_is_completed_by_the_next(site: Site, how: str) -> None:
    site.bed.renew()
    interrupt(site, STEPS // 2, how)
    assert_converges(site)


@pytest.mark.parametrize("how", ["ctrl-c", "ssh-cut"])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_deploy_that_ends_at_any_step_is_completed_by_the_next(
    site: Site, step: int, how: str
) -> None:
    site.bed.renew()
    interrupt(site, step, how)
    assert_converges(site)


def test_no_step_of_a_first_deploy_is_left_out(site: Site) -> None:
    site.bed.renew()
    began = _STEP.findall(said(site.up(bootstrap=True)))
    assert len(began) == STEPS, began
