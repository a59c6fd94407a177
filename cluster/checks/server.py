"""Is a server of its own fit for its replica, and do all of them fit together? Of ``rules``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from cluster.checks.facts import DATA_SUFFIX
from cluster.checks.machine import Machine
from cluster.runtimes import layout, of

#: `ProtectProc`, `RestrictSUIDSGID` and journal namespaces of the unit need it.
SYSTEMD_MIN = 247
#: Replicas estimate the cluster's time from all clocks; seconds apart, they can agree on none.
CLOCK_SPREAD_MAX_S = 5.0


def systemd(machine: Machine) -> None:
    """New enough for our unit."""
    found = machine.seen.systemd
    if found is not None and (not found or int(found) < SYSTEMD_MIN):
        wanted = f"systemd {SYSTEMD_MIN} or newer"
        machine.refuse(wanted, found or "none", "use a distribution that has it, such as Debian 12")


def identity(machine: Machine) -> None:
    """It has its own replica's address."""
    for index, seen in machine.facts.items():
        replicas = machine.deployment.cluster.replicas
        if seen.addresses is not None and str(replicas[index].ip) not in seen.addresses:
            others = [r for r in replicas if str(r.ip) in seen.addresses]
            is_swapped = f", which is replica {others[0].index}'s" if others else ""
            machine.refuse(
                f"a server that has {replicas[index].ip}",
                f"one that has {', '.join(sorted(seen.addresses)) or 'none'}{is_swapped}",
                "put ssh_hosts into replica order, or correct the address in the env file",
            )


def account(machine: Machine) -> None:
    """User and group are there or can be made: of the name and number that data files belong to."""
    seen, user, own = machine.seen, layout.USER, str(layout.UID)
    for what, kind, holder, number, change in (
        ("user", "uid", seen.owner, seen.user, "usermod --uid"),
        ("group", "gid", seen.group_owner, seen.group, "groupmod --gid"),
    ):
        if holder not in ("", user):
            machine.refuse(
                f"{kind} {own} to be free, or {user}'s",
                f"{holder}'s",
                f"give that {what} another {kind}: data files in containers belong to this number",
            )
        if number not in ("", own):
            machine.refuse(
                f"the {what} {user} to have {kind} {own}, or none of this name",
                f"{kind} {number}",
                f"{change} {own} {user}, and chown what it owns; or rename that {what}",
            )


def directory(machine: Machine) -> None:
    """The replica gets to where its files are, and they are where everybody looks for them."""
    seen, runtime = machine.seen, of(machine.deployment)
    other = "set data_dir in the inventory to another directory, such as /srv/tigerbeetle"
    for path, target in seen.links.items():
        fix = f"mount the disk there: mount --bind {target} {path}"
        if path == seen.directory:
            fix = f'set data_dir="{target}" in the inventory, or {fix}'
        if path.endswith(DATA_SUFFIX):
            fix = f"stop its replica, and move the file there: mv {target} {path}"
        machine.refuse(f"{path} itself", f"a link to {target}", fix)
    if seen.obstacle:
        machine.refuse(f"a directory {seen.obstacle}, or nothing there", "something else", other)
    for place in runtime.HIDDEN:
        if PurePosixPath(seen.place).is_relative_to(place):
            machine.refuse(
                f"{seen.directory} where its unit sees it",
                f"it below {place}, which units do not see",
                f'{other}; or runtime="docker"',
            )
    if seen.unreachable and not runtime.HAS_OWN_ROOT:
        machine.refuse(
            f"{seen.directory} within reach of uid {layout.UID}",
            f"{seen.unreachable} closed to it",
            f"chmod o+x {seen.unreachable}, or {other}",
        )


def owners(machine: Machine) -> None:
    """A data file that is there is the replica's own; nobody takes it from whoever has it."""
    own = f"{layout.UID}:{layout.UID}"
    for index, seen in machine.facts.items():
        for file in seen.data_files:
            if file.owner not in ("", own):
                path = f"{layout.directory(machine.deployment, index)}/{file.name}"
                machine.refuse(
                    f"{path} to belong to {own}, which is {layout.USER}",
                    f"it with {file.owner}",
                    f"chown {own} {path}, if it is this replica's",
                )


def clock(machine: Machine) -> None:
    """A time service keeps it right."""
    if machine.deployment.checks_clocks and machine.seen.is_synchronised is False:
        machine.refuse(
            "a clock that a time service keeps right",
            "one that is not synchronised",
            "install chrony, or `timedatectl set-ntp true`, and wait until `timedatectl` says so",
        )


def separation(servers: Sequence[Machine]) -> None:
    """Two names can be one machine: then it has both replicas' addresses."""
    for machine in servers:
        others = [r for r in machine.deployment.cluster.replicas if r.index not in machine.facts]
        shared = [r for r in others if str(r.ip) in (machine.seen.addresses or ())]
        if shared and not machine.deployment.is_rehearsal:
            machine.refuse(
                "a server of its own: one failure must not take two replicas",
                f"one that is replica {shared[0].index}'s too",
                "name another server, or set development=True for a rehearsal",
            )


def peers(servers: Sequence[Machine]) -> None:
    """Each reaches each, so both ways; a port that is refused was reached."""
    for machine in servers:
        for replica in machine.deployment.cluster.replicas:
            if machine.seen.peers.get(replica.address) == "silent":
                machine.refuse(
                    f"to reach replica {replica.index} at {replica.address}",
                    "no answer within 3 s",
                    "let the servers reach one another's ports, in every firewall between them",
                )


def clocks(servers: Sequence[Machine]) -> None:
    """They tell nearly the same time."""
    by_offset = sorted(servers, key=lambda machine: machine.seen.clock_offset_s)
    first, last = by_offset[0], by_offset[-1]
    spread = last.seen.clock_offset_s - first.seen.clock_offset_s
    if last.deployment.checks_clocks and spread > CLOCK_SPREAD_MAX_S:
        last.refuse(
            f"a clock within {CLOCK_SPREAD_MAX_S:g} s of {first.name.removesuffix(' server')}",
            f"one {spread:.1f} s ahead",
            "set both right, and let a time service keep them so",
        )
