"""A cluster on the bed that nobody of ours has started: by hand, and by somebody's own unit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from cluster import config
from cluster.tigerbeetle import binary
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import docker
from tests.operate.ledger import Ledger
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import CLUSTER_ID, PORT

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
STARTS_WITHIN_S = 900
WRITTEN = 500


def file_of(index: int) -> str:
    return f"{PLACE}/{CLUSTER_ID}_{index}.tigerbeetle"


def command(bed: Bed, index: int, *options: str) -> str:
    """What a person starts a replica with."""
    addresses = ",".join(f"{host.ip}:{PORT}" for host in bed.hosts)
    words = (f"--addresses={addresses}", "--cache-grid=64MiB", *options, file_of(index))
    return " ".join([PROGRAM, "start", *words])


def start(bed: Bed, index: int, *options: str) -> None:
    """Over SSH, by a person who then leaves."""
    line = f"cd {PLACE}; setsid nohup {command(bed, index, *options)} >log 2>&1 </dev/null &"
    done = bed.hosts[index].ssh(line)
    assert done.returncode == 0, done.stderr


def pids(host: Machine) -> list[str]:
    """The servers that run there."""
    return host.inside("pgrep -x tigerbeetle").stdout.split()


def stop(host: Machine) -> None:
    host.read("pkill -x tigerbeetle; while pgrep -x tigerbeetle; do sleep 0.1; done >&2")


def format_all(bed: Bed) -> None:
    """Data files, formatted by root's hand; nothing runs."""
    program = binary.find_tigerbeetle(config.load())
    assert program
    for index, host in enumerate(bed.hosts):
        host.read(f"mkdir -p {PLACE} /opt/tb")
        assert docker("cp", str(program), f"{host.container}:{PROGRAM}").returncode == 0
        identity = f"--cluster={CLUSTER_ID} --replica={index} --replica-count=3"
        host.read(f"{PROGRAM} format {identity} {file_of(index)}")


def start_all(bed: Bed) -> None:
    """Two by hand, as root, and one by its unit, as a user of its own. Raises Expired."""
    for index, host in enumerate(bed.hosts):
        if index == OF_UNIT:
            host.read(f"useradd ledger && chown -R ledger {PLACE}")
            unit = UNIT.format(command=command(bed, index))
            host.read(f"cat >/etc/systemd/system/ledger.service <<'END'\n{unit}\nEND")
            host.read("systemctl enable --quiet --now ledger.service")
        else:
            start(bed, index)
    await_listening(bed)


def await_listening(bed: Bed) -> None:
    for host in bed.hosts:
        wait_until(
            lambda host=host: (host.reaches(host.ip, PORT), "closed"),  # type: ignore[misc]
            what=f"{host.name} to listen",
            timeout_s=STARTS_WITHIN_S,
        )


def ledger_of(bed: Bed) -> Ledger:
    """The ledger as this machine reaches it, a client."""
    addresses = ",".join(f"{host.ip}:{PORT}" for host in bed.hosts)
    return Ledger(addresses, CLUSTER_ID)


@contextmanager
def writing(ledger: Ledger) -> Iterator[list[int]]:
    """One transfer after the other, each by a client of its own; those that were acknowledged.

    A stream would fill more than a checkpoint while a replica is away.
    """
    acknowledged: list[int] = []
    ended = Event()

    def write() -> None:
        while not ended.is_set():
            number = WRITTEN + 1 + len(acknowledged)
            ledger.write(number, 1)
            acknowledged.append(number)

    writer = Thread(target=write)
    writer.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        writer.join()
