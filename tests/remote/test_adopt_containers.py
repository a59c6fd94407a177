"""Plain containers of TigerBeetle's own image are adopted by the runtime "docker". Genuine."""

from __future__ import annotations

import subprocess

import pytest

from cluster.runtimes import image, layout
from tests.remote.bed import Bed
from tests.remote.foreign import PLACE, WRITTEN, await_listening, command, ledger_of
from tests.remote.machine import Machine
from tests.remote.site import CLUSTER_ID, Site, changes, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]


def test_containers_are_adopted_as_containers(engine_bed: Bed) -> None:
    """Plain ones of Docker's, which somebody runs with the server's own network."""
    site = Site(engine_bed, runtime="docker", name="engines").write()
    site.build_image()
    name = image.base(site.deployment.cluster)  # TigerBeetle's own
    for index, host in enumerate(engine_bed.hosts):
        load_image(name, host)
        host.read(f"mkdir -p {PLACE}")
        run = (
            f"docker run --network=host --security-opt=seccomp=unconfined --user=0 -v {PLACE}:/data"
        )
        identity = f"--cluster={CLUSTER_ID} --replica={index} --replica-count=3"
        inside = f"/data/{CLUSTER_ID}_{index}.tigerbeetle"
        host.read(f"{run} --rm {name} format {identity} {inside}")
        called = command(engine_bed, index).split()[1:-1]
        options = "--detach --restart=always --cap-add=IPC_LOCK --name=ledger"
        host.read(f"{run.replace('run', f'run {options}', 1)} {name} {' '.join(called)} {inside}")
    await_listening(engine_bed)
    ledger = ledger_of(engine_bed)
    ledger.write(1, WRITTEN)
    before = ledger.read(WRITTEN)
    done = site.run("make", "adopt", "CONFIRM=yes")
    assert done.returncode == 0, said(done)[-4000:]
    assert "in the container ledger" in said(done)
    assert ledger.read(WRITTEN) == before
    for index, host in enumerate(engine_bed.hosts):
        states = host.read("docker ps --all --format '{{.Names}} {{.State}}'").splitlines()
        assert sorted(states) == ["ledger exited", f"tigerbeetle-{index} running"]
        path = layout.data_path(site.deployment, index)
        assert host.read(f"stat --format='%u %a' {path}") == f"{layout.UID} 600\n"
    assert site.run("make", "status").returncode == 0
    assert changes(site.up()) == []


def load_image(name: str, host: Machine) -> None:
    """From this machine's engine into the server's own."""
    packed = subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE)
    inside = ["docker", "exec", "--interactive", host.container, "docker", "load"]
    done = subprocess.run(
        inside, stdin=packed.stdout, capture_output=True, timeout=600, check=False
    )
    assert packed.wait(timeout=600) == 0
    assert done.returncode == 0, done.stderr
