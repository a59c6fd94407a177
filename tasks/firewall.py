"""The firewall of a replica's server: replicas and listed clients reach its port, nobody else.
The monitoring host has one too, for the port at which it takes metrics.

New rules are loaded under a timer that takes them back; only a new SSH connection that gets in
stops it. Until then nothing on disk has changed, so that a reboot takes them back too.
"""

from __future__ import annotations

import shlex
from io import StringIO

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.facts.files import File
from pyinfra.facts.server import Command, Which
from pyinfra.operations import apt, files, systemd

from cluster import REPOSITORY
from cluster.checks import firewall
from cluster.checks.firewall import TABLE
from cluster.config.model import Cluster
from cluster.config.servers import Settings, monitoring_address
from cluster.runtimes import ssh
from tasks.support.act import call, run_now
from tasks.support.connector import way_to
from tasks.support.here import deployment_here, guarded
from tasks.support.observed import is_outdated

RULES = "/etc/tigerbeetle/firewall.nft"
UNIT = "tigerbeetle-firewall.service"

#: How long new rules are on trial: longer than to load them and to log in again, and the longest
#: that a mistake can last.
TRIAL_S = 40
_COMMAND_TIMEOUT_S = 10

_SOURCES = REPOSITORY / "files" / "firewall"
_NEXT = f"{RULES}.next"
_ROLLBACK = "tigerbeetle-firewall-rollback"
_DELETE = f"nft delete table inet {TABLE}"
#: Source → where it goes: the unit, and what brings the rules back when nftables' own are loaded.
_UNIT_FILES = {
    UNIT: f"/etc/systemd/system/{UNIT}",
    "nftables.conf": "/etc/systemd/system/nftables.service.d/tigerbeetle.conf",
}
#: What these files belong to.
_UNITS = (UNIT, "nftables.service")
_UNREACHABLE = (
    "firewall: expected a new SSH connection to get in under the new rules, found {found}. "
    f"The server goes back to its former rules within {TRIAL_S} s. "
    "Fix: look for other rules on the server that go with ours (nft list ruleset), then repeat"
)


@deploy("Check the firewall's settings")
def check() -> None:
    """They keep SSH open, and the replica's port from everybody."""
    cluster, settings = _described()
    with guarded():
        firewall.check(cluster, settings.clients, int(host.data.get("ssh_port") or 22))


@deploy("Let replicas and listed clients in, and nobody else")
def apply() -> None:
    """Load the rules, on trial until SSH has proven to work; then keep them over reboots."""
    check()
    wanted = _wanted()
    if _in_force() == wanted:
        host.noop("firewall: these rules are loaded already")
    else:
        if not host.get_fact(Which, command="nft"):
            apt.packages(name="Install nftables", packages=["nftables"], update=True)
        files.put(
            name="Upload the new rules",
            src=StringIO(wanted),
            dest=_NEXT,
            mode="600",
            create_remote_dir=True,
        )
        call("Load them, and keep them if SSH still gets in", _try_and_keep)
    is_unread = is_outdated(*_UNITS)
    uploads = [
        files.put(name=f"Write {path}", src=str(_SOURCES / source), dest=path, mode="644")
        for source, path in _UNIT_FILES.items()
    ]
    systemd.service(
        name="Load the rules at every boot",
        service=UNIT,
        running=True,
        enabled=True,
        daemon_reload=is_unread or any(upload.will_change for upload in uploads),
    )


@deploy("Take the firewall away")
def remove() -> None:
    """Leave this server as it was before `apply`: its replica's port is open to everybody."""
    if host.get_fact(File, path=_UNIT_FILES[UNIT]):
        systemd.service(name="Unload the rules", service=UNIT, running=False, enabled=False)
    gone = [
        files.file(name=f"Remove {path}", path=path, present=False)
        for path in (*_UNIT_FILES.values(), RULES, _NEXT)
    ]
    if is_outdated(*_UNITS) or any(removal.will_change for removal in gone):
        systemd.daemon_reload(name="Forget the unit")


def _wanted() -> str:
    """This server's rules, from the inventory."""
    cluster, settings = _described()
    if host.data.get("replica") is None:
        return firewall.monitoring_rules(cluster, settings.clients)
    replica = cluster.replicas[int(host.data.replica)]
    exporter = str(monitoring_address(cluster)[0]) if settings.node_exporter else ""
    return firewall.rules(cluster, replica, firewall.admitted(cluster, settings), exporter)


def _described() -> tuple[Cluster, Settings]:
    """The cluster, and what the inventory says of its servers."""
    deployment = deployment_here()
    with guarded():
        return deployment.cluster, deployment.of_servers


def _in_force() -> str:
    """The rules that are on disk, if they are loaded; else nothing."""
    shown = host.get_fact(
        Command, f"if nft list table inet {TABLE} >/dev/null 2>&1; then cat {RULES}; fi"
    )
    return f"{shown}\n" if shown else ""


def _try_and_keep() -> None:
    """Load the uploaded rules for TRIAL_S; keep them when a new connection gets in."""
    former = f"if [ -e {RULES} ]; then nft -f {RULES}; else {_DELETE}; fi"
    # Without an accuracy of its own a timer may come up to a minute late.
    on_time = f"--on-active={TRIAL_S} --timer-property=AccuracySec=1s"
    timer = f"systemd-run --quiet --unit={_ROLLBACK} {on_time}"
    _run(f"systemctl stop {_ROLLBACK}.timer 2>/dev/null; nft -c -f {_NEXT}", "refused")
    _run(f"{timer} sh -c {shlex.quote(former)}", "no timer")
    try:
        # Without an answer, the rules have cut this very connection.
        _run(f"nft -f {_NEXT}", "refused")
        ssh.prove(way_to(host))
        _run(f"mv {_NEXT} {RULES} && systemctl stop {_ROLLBACK}.timer", "no answer")
    except OSError as error:  # TimeoutError and SshError, too
        raise DeployError(_UNREACHABLE.format(found=error or "no answer")) from None


def _run(command: str, otherwise: str) -> None:
    """Run a shell line as root. Raises DeployError with what it said, and TimeoutError."""
    done, output = run_now(StringCommand(command), _timeout=_COMMAND_TIMEOUT_S)
    if not done:
        raise DeployError(
            f"firewall: expected `{command}` to succeed, found {otherwise}: {output}. "
            "Fix: mend what it names; the former rules stay, or come back"
        )
    logger.debug(output)
