"""Replicas that somebody has started are adopted as docs/servers.md has a person type it.

With the genuine server. The tests run in the order in which they are written: a foreign cluster of
a unit and of two servers started by hand, all that is refused, a replica whose adoption fails and
is taken back, the rest of it, and a cluster in containers.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import REPOSITORY, config
from cluster.runtimes import image, layout
from cluster.tigerbeetle import binary
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import docker
from tests.operate.ledger import Ledger, acknowledged, await_count
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import CLUSTER_ID, PORT, Site, changes, prints, said

pytestmark = [
    pytest.mark.remote,
    pytest.mark.genuine,
    pytest.mark.long,
    pytest.mark.random_order(disabled=True),
]

PROGRAM, PLACE = "/opt/tb/tigerbeetle", "/srv/tb"
#: Whose server is a unit, run by a user of its own.
OF_UNIT = 1
UNIT = f"""\
[Service]
User=ledger
WorkingDirectory={PLACE}
ExecStart={{command}}
Restart=always
[Install]
WantedBy=multi-user.target
"""
OTHER_UNIT = f"""\
[Service]
ExecStart={PROGRAM} start --addresses=${{ADDRESSES}} ${{FILE}}
[Install]
WantedBy=multi-user.target
"""
STARTS_WITHIN_S = 900
WRITTEN = 500


def typed() -> list[list[str]]:
    """The make lines of the page's section, without the inventory, which is the test's own."""
    page = (REPOSITORY / "docs" / "servers.md").read_text()
    section = page.partition("\n## A cluster that somebody has started already\n")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    lines = [line.partition("#")[0].split() for line in block.splitlines()]
    makes = [line for line in lines if line[0] == "make" and "init-env" not in line]
    assert all("INVENTORY=inventories/production.py" in line for line in makes)
    return [[word for word in line if not word.startswith("INVENTORY=")] for line in makes]


def file_of(index: int) -> str:
    return f"{PLACE}/{CLUSTER_ID}_{index}.tigerbeetle"


def command(bed: Bed, index: int, *options: str) -> str:
    """What a person starts a replica with."""
    addresses = ",".join(f"{host.ip}:{PORT}" for host in bed.hosts)
    words = (f"--addresses={addresses}", "--cache-grid=64MiB", *options, file_of(index))
    return " ".join([PROGRAM, "start", *words])


def start(bed: Bed, index: int, *options: str) -> None:
    """Over SSH, by a person who then leaves."""
    line = f"cd {PLACE} && setsid nohup {command(bed, index, *options)} >log 2>&1 </dev/null &"
    done = bed.hosts[index].ssh(line)
    assert done.returncode == 0, done.stderr


def pids(host: Machine) -> list[str]:
    """The servers that run there."""
    return host.inside("pgrep -x tigerbeetle").stdout.split()


def stop(host: Machine) -> None:
    host.read("pkill -x tigerbeetle; while pgrep -x tigerbeetle; do sleep 0.1; done >&2")


def traces(host: Machine) -> set[str]:
    """All that a refusal must leave as it was, the foreign replica's file and process too."""
    files = host.read(f"find /srv -printf '%p %i %U %m\\n' | grep -v {PLACE}$").splitlines()
    return prints(host) | {*files, *pids(host)}


@pytest.fixture(scope="module")
def site(bed: Bed) -> Site:
    """A cluster that nobody of ours has started, and its description; some transfers in it."""
    program = binary.find_tigerbeetle(config.load())
    assert program
    for index, host in enumerate(bed.hosts):
        host.read(f"mkdir -p {PLACE} /opt/tb")
        assert docker("cp", str(program), f"{host.container}:{PROGRAM}").returncode == 0
        identity = f"--cluster={CLUSTER_ID} --replica={index} --replica-count=3"
        host.read(f"{PROGRAM} format {identity} {file_of(index)}")
        if index == OF_UNIT:
            host.read(f"useradd ledger && chown -R ledger {PLACE}")
            unit = UNIT.format(command=command(bed, index))
            host.read(f"cat >/etc/systemd/system/ledger.service <<'END'\n{unit}\nEND")
            host.read("systemctl enable --quiet --now ledger.service")
        else:
            start(bed, index)
    made = Site(bed, name="production").write()
    await_listening(bed)
    ledger_of(made).write(1, WRITTEN)
    return made


def await_listening(bed: Bed) -> None:
    for host in bed.hosts:
        wait_until(
            lambda host=host: (host.reaches(host.ip, PORT), "closed"),  # type: ignore[misc]
            what=f"{host.name} to listen",
            timeout_s=STARTS_WITHIN_S,
        )


def ledger_of(site: Site) -> Ledger:
    """The ledger as this machine reaches it, a client."""
    addresses = ",".join(f"{host.ip}:{PORT}" for host in site.bed.hosts)
    return Ledger(addresses, CLUSTER_ID)


@contextmanager
def having(site: Site, **changed: object) -> Iterator[None]:
    """The description says something else for a while: variables in capitals, or settings."""
    settings, variables = dict(site.settings), dict(site.variables)
    site.variables |= {key: str(value) for key, value in changed.items() if key.isupper()}
    site.write(**{key: value for key, value in changed.items() if not key.isupper()})
    try:
        yield
    finally:
        site.settings, site.variables = settings, variables
        site.write()


def adopt(site: Site) -> subprocess.CompletedProcess[str]:
    """What `make adopt CONFIRM=yes` types: make has one exit code for all that fails."""
    site.exported["CONFIRM"] = "yes"
    try:
        return site.run("python", "-m", "cluster", "adopt")
    finally:
        del site.exported["CONFIRM"]


def assert_refused(site: Site, *words: str) -> None:
    """In one line, with nothing changed: files, units, users, and who serves."""
    before = [traces(host) for host in site.bed.hosts]
    done = adopt(site)
    after = [traces(host) for host in site.bed.hosts]
    assert done.returncode == 2, said(done)[-3000:]
    (line,) = [line for line in said(done).splitlines() if line.startswith("error: ")]
    for word in (*words, ". Fix: "):
        assert word in line
    assert "Traceback" not in said(done)
    assert [now ^ then for now, then in zip(after, before, strict=True)] == [set()] * 3


def test_a_look_says_what_is_there_and_changes_nothing(site: Site) -> None:
    before = [traces(host) for host in site.bed.hosts]
    done = site.run(*typed()[0])
    assert [traces(host) for host in site.bed.hosts] == before
    assert done.returncode == 2
    for index, host in enumerate(site.bed.hosts):
        (pid,) = pids(host)
        by = "started by ledger.service" if index == OF_UNIT else "started by hand, as root"
        assert f"replica {index} on {host.ip}: pid {pid}, {by}" in said(done)
        assert f"rename the file to {layout.data_path(site.deployment, index)}" in said(done)
    assert "CONFIRM: expected yes" in said(done)


def test_a_deploy_in_its_place_is_refused_and_points_here(site: Site) -> None:
    before = [traces(host) for host in site.bed.hosts]
    for bootstrap in (False, True):
        done = site.up(bootstrap=bootstrap)
        assert done.returncode != 0
        assert "make adopt INVENTORY=" in said(done)
    assert [traces(host) for host in site.bed.hosts] == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"CLUSTER_ID": 77}, ("the data file of cluster 77", "CLUSTER_ID=")),
        ({"data_dir": "/run/tigerbeetle"}, ("on the file system of /run/tigerbeetle", "data_dir")),
        ({"RELEASE": "0.17.8"}, ("0.17.8", "0.17.9")),
        ({"engine": "emulator"}, ("found the EMULATOR",)),
        ({"clients": ["0.0.0.0/0"]}, ("clients: expected", "everybody")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_description_of_another_cluster_is_refused(
    site: Site, changed: dict[str, object], words: tuple[str, ...]
) -> None:
    with having(site, **changed):
        assert_refused(site, *words)


def test_replicas_in_another_order_are_refused(site: Site) -> None:
    first, second, third = (host.ip for host in site.bed.hosts)
    swapped = {"0_IP": second, "1_IP": first}
    addresses = ",".join(f"{ip}:{PORT}" for ip in (second, first, third))
    with having(site, **swapped, ADDRESSES=addresses, ssh_hosts=(second, first, third)):
        assert_refused(site, "expected --addresses=", "the order counts")


def test_a_unit_that_would_start_another_one_is_named(site: Site) -> None:
    host = site.bed.hosts[0]
    host.read(f"cat >/etc/systemd/system/old-tb.service <<'END'\n{OTHER_UNIT}\nEND")
    host.read("systemctl enable --quiet old-tb.service")
    try:
        assert_refused(
            site, "found old-tb.service, which would", "systemctl disable old-tb.service"
        )
    finally:
        host.read("systemctl disable --quiet old-tb.service; rm /etc/systemd/system/old-tb.service")


def test_a_cluster_that_is_not_well_is_refused(site: Site) -> None:
    host = site.bed.hosts[2]
    host.read("pkill -STOP -x tigerbeetle")
    try:
        assert_refused(site, "expected every replica that runs to be normal", "replica 2 wedged")
    finally:
        host.read("pkill -CONT -x tigerbeetle")


def test_a_server_that_does_not_run_is_refused(site: Site) -> None:
    stop(site.bed.hosts[2])
    try:
        assert_refused(site, "replica 2's server: expected one TigerBeetle server", "found none")
    finally:
        start(site.bed, 2)
        await_listening(site.bed)


def test_a_server_for_development_is_refused(site: Site) -> None:
    stop(site.bed.hosts[2])
    start(site.bed, 2, "--development")
    await_listening(site.bed)
    try:
        assert_refused(site, "replica 2's server", "with --development")
    finally:
        stop(site.bed.hosts[2])
        start(site.bed, 2)
        await_listening(site.bed)


def test_a_replica_that_does_not_come_back_is_served_as_before(site: Site) -> None:
    """The others that were adopted stay so, and the cluster goes on."""
    bed, host = site.bed, site.bed.hosts[0]
    inode = host.read(f"stat --format=%i {file_of(0)}")
    (pid,) = pids(host)
    drop_in = "/etc/systemd/system/tigerbeetle-0.service.d"
    host.read(f"mkdir {drop_in}; printf '[Service]\\nExecStartPre=false\\n' >{drop_in}/x.conf")
    try:
        done = adopt(site)
    finally:
        host.read(f"rm -r {drop_in}")
    assert done.returncode == 1, said(done)[-4000:]
    *_, last = [line for line in said(done).splitlines() if line.startswith("error: ")]
    (again,) = pids(host)
    assert again != pid
    assert f"replica 0 pid {again}, started by hand, as root" in last
    assert "Fix: make adopt INVENTORY=" in last
    assert host.read(f"stat --format='%i %U %a' {file_of(0)}") == f"{inode.strip()} root 600\n"
    assert host.inside("systemctl is-active tigerbeetle-0").stdout != "active\n"
    assert host.inside("systemctl is-enabled tigerbeetle-0").stdout != "enabled\n"
    await_listening(bed)
    assert len(ledger_of(site).read(WRITTEN)["transfers"]) == WRITTEN


def test_a_cluster_is_adopted_with_all_that_it_holds_while_it_goes_on(
    site: Site, tmp_path: Path
) -> None:
    bed, ledger, log = site.bed, ledger_of(site), tmp_path / "acknowledged"
    before = ledger.read(WRITTEN)
    inodes = [
        host.read("find /srv /var/lib/tigerbeetle -name '*.tigerbeetle' -printf '%i\n'")
        for host in bed.hosts
    ]
    with ledger.streaming(10_001, log):
        await_count(1, log)
        for line in typed()[1:]:
            done = site.run(*line)
            assert done.returncode == 0, f"{line}: {said(done)[-4000:]}"
        await_count(len(acknowledged(log)) + 1, log)
    after = ledger.read(10_000 + len(acknowledged(log)))["transfers"]
    assert after[:WRITTEN] == before["transfers"]
    assert {number for number, _ in acknowledged(log)} <= {transfer[0] for transfer in after}
    for index, host in enumerate(bed.hosts):
        path = layout.data_path(site.deployment, index)
        files = "find / -xdev -name '*.tigerbeetle' -printf '%i %p %U %m\n'"
        assert host.read(files) == f"{inodes[index].strip()} {path} {layout.UID} 600\n"
        assert len(pids(host)) == 1
        assert host.read(f"ls {layout.directory(site.deployment, index)}").split() == [
            Path(path).name
        ]
    assert bed.hosts[OF_UNIT].inside("systemctl is-enabled ledger").stdout == "disabled\n"
    assert changes(site.up()) == []


def test_what_is_adopted_needs_no_adoption(site: Site) -> None:
    before = [traces(host) for host in site.bed.hosts]
    done = site.run("make", "adopt")
    assert done.returncode == 0, said(done)
    assert "nothing to adopt" in said(done)
    assert [traces(host) for host in site.bed.hosts] == before


def test_they_start_with_their_servers(site: Site) -> None:
    host = site.bed.hosts[0]
    host.switch_off()
    host.switch_on()
    wait_until(
        lambda: ((done := site.run("make", "status")).returncode == 0, said(done)[-300:]),
        what="a healthy cluster",
        timeout_s=STARTS_WITHIN_S,
    )
    assert re.search(r"cluster: healthy", said(site.run("make", "status")))


# --- In containers --------------------------------------------------------------------------------


def test_containers_are_adopted_as_containers(site: Site, engine_bed: Bed) -> None:
    """Plain ones of Docker's, which somebody runs with the server's own network."""
    for host in site.bed.hosts:  # room for three others
        stop_all = "systemctl disable --quiet --now 'tigerbeetle-*.service'"
        host.inside(stop_all)
    other = Site(engine_bed, runtime="docker", name="engines").write()
    other.build_image()
    name = image.name(other.deployment.cluster)
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
    ledger = ledger_of(other)
    ledger.write(1, WRITTEN)
    before = ledger.read(WRITTEN)
    done = other.run("make", "adopt", "CONFIRM=yes")
    assert done.returncode == 0, said(done)[-4000:]
    assert "in the container ledger" in said(done)
    assert ledger.read(WRITTEN) == before
    for index, host in enumerate(engine_bed.hosts):
        states = host.read("docker ps --all --format '{{.Names}} {{.State}}'").splitlines()
        assert sorted(states) == ["ledger exited", f"tigerbeetle-{index} running"]
        path = layout.data_path(other.deployment, index)
        assert host.read(f"stat --format='%u %a' {path}") == f"{layout.UID} 600\n"
    assert other.run("make", "status").returncode == 0
    assert changes(other.up()) == []


def load_image(name: str, host: Machine) -> None:
    """From this machine's engine into the server's own."""
    packed = subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE)
    inside = ["docker", "exec", "--interactive", host.container, "docker", "load"]
    done = subprocess.run(
        inside, stdin=packed.stdout, capture_output=True, timeout=600, check=False
    )
    assert packed.wait(timeout=600) == 0
    assert done.returncode == 0, done.stderr
