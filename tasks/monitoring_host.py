"""The monitoring host of replicas on servers: `make monitor-up` calls these for their inventory.

Debian's Prometheus and blackbox exporter, and our collector, each as a hardened unit of its own.
What the packages would start by themselves, on every address, is masked before they are installed.
"""

from __future__ import annotations

from io import BytesIO, StringIO

from pyinfra import host
from pyinfra.api import FactBase, deploy
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import apt, files

from cluster.health import textfile
from cluster.operate.backup import outcomes
from cluster.tigerbeetle.waiting import Expired, wait_until
from monitoring import host as monitoring_host
from monitoring import stack
from monitoring.host import DIRECTORY, Observation
from tasks import firewall
from tasks.support.act import call, run_now, shell, tell
from tasks.support.here import deployment_here, guarded

#: Prometheus replays what it has stored before it is ready: seconds for 15 days of three replicas.
READY_TIMEOUT_S = 120
_INSTALL_TIMEOUT_S = 600
_COMMAND_TIMEOUT_S = 30
UNITS = "/etc/systemd/system"


class HostObservation(FactBase[Observation]):
    """``files/monitoring/observe.sh`` on the host, read."""

    def command(self) -> str:
        """The shell line to run there."""
        return monitoring_host.command()

    def process(self, output: list[str]) -> Observation:
        """What it printed."""
        return monitoring_host.parse(output)


@deploy("Check the monitoring host")
def check() -> None:
    """It is fit, has the addresses that were named, and monitors no other cluster. No impact."""
    deployment = deployment_here()
    if not host.data.get("monitors"):
        raise DeployError(
            f"{host.name}: expected the monitoring host, found a replica's. Fix: make monitor-up "
            f"{deployment.named}"
        )
    with guarded():
        monitoring_host.check(deployment, observed(), stack.ports())
    firewall.check()


@deploy("Install Prometheus")
def install() -> None:
    """Debian's packages, none of which starts anything by itself; and our collector."""
    if missing := monitoring_host.missing(observed()):
        install_masked(*missing)
    files.put(
        name="Ship the collector",
        src=BytesIO(monitoring_host.collector()),
        dest=monitoring_host.COLLECTOR,
        mode="755",
        create_remote_dir=True,
    )


@deploy("Describe the monitoring")
def describe() -> None:
    """Write what the programs read, and their units. Nothing that runs is touched."""
    deployment = deployment_here()
    with guarded():
        listen = stack.ports()
    read = monitoring_host.configuration(deployment, listen)
    units = monitoring_host.units(deployment, listen)
    for path in (DIRECTORY, f"{DIRECTORY}/rules", textfile.DIRECTORY_THERE):
        files.directory(name=f"Have {path}", path=path, mode="755")
    _write({f"{DIRECTORY}/{name}": text for name, text in read.items()})
    _write({f"{UNITS}/{monitoring_host.unit(name)}": text for name, text in units.items()})
    if observed().has_grafana:
        _write(monitoring_host.grafana(deployment, listen))
    if kept := outcomes.metrics(deployment):  # nothing is known here: another machine may know
        _write({f"{textfile.DIRECTORY_THERE}/{textfile.writer()}.prom": kept})


@deploy("Run the monitoring")
def run() -> None:
    """Start what does not run, restart what has other settings, and wait until it is ready."""
    deployment = deployment_here()
    with guarded():
        listen = stack.ports()
    stale = monitoring_host.stale(observed(), monitoring_host.units(deployment, listen))
    if not stale:
        host.noop("monitoring: all runs, as described")
        return
    for name in stale:
        restart(name)
    call(
        "See that Prometheus is ready",
        _await_ready,
        address=monitoring_host.prometheus_address(deployment, listen),
    )


@deploy("Set up the monitoring host")
def start() -> None:
    """All of it; safe to repeat."""
    check()
    firewall.apply()
    install()
    describe()
    run()


@deploy("Stop the monitoring host's programs")
def stop() -> None:
    """Stop them, also after a boot; what Prometheus has stored stays, and so does the firewall."""
    for name in observed().running:
        shell(f"Stop the {name}", f"systemctl disable --now {monitoring_host.unit(name)}")


def install_masked(*packages: str) -> None:
    """Install Debian packages, none of which starts anything by itself."""
    for package in packages:
        files.link(
            name=f"Keep {package} from starting by itself, on every address",
            path=f"{UNITS}/{package}.service",
            target="/dev/null",
        )
    apt.packages(
        name=f"Install {' '.join(packages)}",
        packages=[*packages],
        update=True,
        no_recommends=True,
        _timeout=_INSTALL_TIMEOUT_S,
    )


def restart(name: str) -> None:
    """Start a unit as it is written, now and at every boot."""
    unit = monitoring_host.unit(name)
    # Whoever wrote the unit may have been interrupted before systemd was told.
    now, at_boot = f"systemctl restart {unit}", f"systemctl enable {unit}"
    shell(f"Start the {name}", "systemctl daemon-reload", at_boot, now)


def observed() -> Observation:
    """The host as it was before any change. Raises DeployError when it says nothing."""
    seen: Observation | None = host.get_fact(HostObservation)
    if seen is None:
        raise DeployError(
            f"{host.name}: expected it to describe itself, found nothing. "
            "Fix: see what it said above; root, or sudo without a password, is needed"
        )
    return seen


def _write(wanted: dict[str, str]) -> None:
    for path, text in wanted.items():
        files.put(
            name=f"Write {path}", src=StringIO(text), dest=path, mode="644", create_remote_dir=True
        )


def _await_ready(address: str) -> None:
    """Raises DeployError with what was last seen."""
    ask = "import urllib.request as r; print(r.urlopen('http://%s/-/ready', timeout=5).status)"
    command = StringCommand("python3", "-c", f'"{ask % address}"')

    def observe() -> tuple[bool, str]:
        done, output = run_now(command, _timeout=_COMMAND_TIMEOUT_S)
        last = (output.output.splitlines() or ["nothing"])[-1]
        return done and output.stdout.strip() == "200", last

    try:
        wait_until(observe, what=f"Prometheus at {address}", timeout_s=READY_TIMEOUT_S)
    except Expired as expired:
        raise DeployError(
            f"{expired}. Fix: journalctl -u {monitoring_host.unit('prometheus')} on the host"
        ) from None
    tell(f"Prometheus is ready at http://{address} of the monitoring host")
