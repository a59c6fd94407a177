"""How hosts are reached over SSH: what an inventory says of each, and what ssh_config adds."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

from cluster.refusal import Refusal

DEFAULT_PORT = 22
_TIMEOUT_S = 10
#: Never a word that `ssh` would take for an option.
_WAY = re.compile(
    r"(?:(?P<user>[^\s@:-][^\s@:]*)@)?"
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s@:\[\]-][^\s@:\[\]]*))(?::(?P<port>\d+))?"
    r"|(?P<ipv6>[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)"
)


class Way(NamedTuple):
    """A host's name or ssh_config alias, and with whom and where to log in."""

    hostname: str
    user: str
    port: int

    @property
    def place(self) -> str:
        """One machine, of several that may share an address."""
        return self.hostname if self.port == DEFAULT_PORT else f"{self.hostname}:{self.port}"


def of(
    written: str, user: str | None, port: int | None, config: str = "", what: str = "ssh_hosts"
) -> Way:
    """The way that ``[user@]host[:port]`` names; what it leaves out is ``user`` and ``port``.

    Where those are None, it is what `ssh` itself would take: its configuration's, in the file
    ``config`` or its usual places. Raises Refusal.
    """
    found = _WAY.fullmatch(written)
    if not found:
        fix = "write a name, an address or an alias of ssh_config, such as admin@10.0.0.11:2222"
        raise Refusal(what, expected="[user@]host[:port]", found=written or "nothing", fix=fix)
    hostname = found["bracketed"] or found["name"] or found["ipv6"]
    user, number = found["user"] or user, int(found["port"] or port or 0)
    if not (user and number):
        known = _configured(hostname, config)
        user, number = user or known["user"], number or int(known["port"])
    if not 0 < number < 2**16:
        wanted, fix = "a port from 1 to 65535", "correct it in the inventory"
        raise Refusal(what, expected=wanted, found=f"{number} for {hostname}", fix=fix)
    return Way(hostname, user, number)


def _configured(hostname: str, config: str) -> dict[str, str]:
    """The options that `ssh` takes for a host: lower-case name → its first value."""
    options = ["-F", config] if config else []
    try:
        done = subprocess.run(
            ["ssh", "-G", *options, hostname],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except OSError:
        done = subprocess.CompletedProcess([], 1, "", "no `ssh` on PATH")
    pairs = [line.partition(" ") for line in reversed(done.stdout.splitlines())]
    known = {name: value for name, _, value in pairs}
    if done.returncode or not {"user", "port"} <= known.keys():
        raise Refusal(
            "ssh_user, ssh_port",
            expected=f"`ssh -G {hostname}` to say what its configuration has",
            found=done.stderr.strip().splitlines()[-1:] or "nothing",
            fix="correct that configuration, or set both in the inventory",
        )
    return known
