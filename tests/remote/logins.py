"""Logins to the bed's servers, as their own journals count them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.remote.machine import Machine
from tests.remote.site import Site

#: Of any command to any server.
LOGINS_MAX = 3
_SSHD = "/etc/ssh/sshd_config.d"


def accepted(host: Machine) -> int:
    """How often somebody has got in."""
    count = host.inside("journalctl --unit=ssh --output=cat | grep -c '^Accepted publickey'")
    return int(count.stdout)


def cut(host: Machine) -> None:
    """End all connections to a host, as a restart of it would."""
    host.inside("pkill -f '^sshd: (admin|root)'")


@contextmanager
def counted(site: Site, *, cold: bool = True) -> Iterator[list[int]]:
    """The logins to each host while this lasts; ``cold`` ends all connections before."""
    hosts, found = site.bed.hosts, list[int]()
    for host in hosts if cold else ():
        cut(host)
    before = [accepted(host) for host in hosts]
    yield found
    found += [accepted(host) - then for host, then in zip(hosts, before, strict=True)]


@contextmanager
def sshd(host: Machine, *lines: str, name: str = "1") -> Iterator[None]:
    """The host's sshd with other settings: of those with several names, the smallest counts."""
    text, file = "\\n".join(lines), f"{_SSHD}/{name}-of-a-test.conf"
    try:
        host.read(f"printf '{text}\\n' >{file} && systemctl restart ssh")
        yield
    finally:
        host.read(f"rm {file} && systemctl restart ssh")


@contextmanager
def limited(host: Machine, verdict: str, *, rate: str = "") -> Iterator[None]:
    """A firewall of the host's own that does this to new SSH connections; beyond ``rate``, if any.

    ``ufw limit`` is much the same: six within half a minute.
    """
    match = f"limit rate over {rate} burst 6 packets" if rate else ""
    host.read(
        "nft 'add table inet limits; add chain inet limits in { type filter hook input priority"
        f" -5; }}; add rule inet limits in tcp dport 22 ct state new {match} {verdict}'"
    )
    try:
        yield
    finally:
        host.read("nft delete table inet limits")
