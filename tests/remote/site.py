"""An installation on the test bed: its private env file, its inventory, and what a person types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import config, inventory
from cluster.config import ENV_FILE, PREFIX
from cluster.inventory import REPOSITORY, Deployment
from tests.docker.sandbox import memlock
from tests.remote.bed import Bed
from tests.remote.machine import ADMIN

#: Every replica's port: on servers they may share one.
PORT = 3000
CLUSTER_ID = 2**100 + 7

_BIN = Path(sys.executable).parent
_TIMEOUT_S = 300
_TOTAL = re.compile(r"Grand total +(\S+) +(\S+) +(\S+) +(\S+)")


@dataclass
class Site:
    """One cluster described for the bed's hosts. Nothing happens until a command is typed."""

    bed: Bed
    runtime: str = "systemd"
    #: Settings of the inventory that are not the bed's usual ones.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Variables of the env file that are not the repository's, without their prefix.
    variables: dict[str, str] = field(default_factory=dict)
    name: str = "remote"

    @property
    def inventory(self) -> Path:
        """The inventory file."""
        return self.bed.directory / f"{self.name}.py"

    @property
    def env_file(self) -> Path:
        """The private env file."""
        return self.bed.directory / f"{self.name}.env"

    @property
    def environ(self) -> dict[str, str]:
        """The process environment of every command: none of a person's own settings."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        return own | {"INVENTORY": str(self.inventory)}

    @property
    def deployment(self) -> Deployment:
        """What the commands read."""
        return inventory.read(self.inventory)

    def write(self, **settings: Any) -> Site:
        """Write both files, for good with these settings as well."""
        self.settings |= settings
        ips = [machine.ip for machine in self.bed.hosts]
        self.env_file.write_text(_env_text(self.bed, ips, self.variables))
        self.env_file.chmod(0o600)
        arguments = {
            "env_file": str(self.env_file),
            "runtime": self.runtime,
            "ssh_user": ADMIN,
            "ssh_key": str(self.bed.key),
            "ssh_known_hosts_file": str(self.bed.known_hosts),
            # Hosts in containers share this machine's clock, which no time service may keep.
            "check_clock": False,
            "clients": [f"{self.bed.client.ip}/32", f"{self.bed.control}/32"],
        } | self.settings
        lines = "".join(f"    {key}={value!r},\n" for key, value in arguments.items())
        call = f"hosts = on_servers(\n    {self.name!r},\n{lines})\n"
        self.inventory.write_text(f"from cluster.servers import on_servers\n{call}")
        return self

    def run(self, *command: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run a command of this project's environment, such as ``pytest`` or ``make``."""
        program = _BIN / command[0]
        path = str(program) if program.exists() else command[0]
        return subprocess.run(
            [path, *command[1:]], cwd=REPOSITORY, env=self.environ, text=True,
            capture_output=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def pyinfra(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``pyinfra --yes INVENTORY ARGUMENTS``; ``--data`` may be among them."""
        return self.run("pyinfra", "--yes", str(self.inventory), *arguments)

    def up(self, *, bootstrap: bool = False) -> subprocess.CompletedProcess[str]:
        """``make up INVENTORY=...``, with BOOTSTRAP=yes for the first time."""
        return self.run("make", "up", *(["BOOTSTRAP=yes"] if bootstrap else []))


def changes(done: subprocess.CompletedProcess[str]) -> int:
    """How many operations have changed something, by pyinfra's own grand total."""
    total = _TOTAL.search(done.stdout + done.stderr)
    assert total, (done.stdout + done.stderr)[-3000:]
    return 0 if total[2] == "-" else int(total[2])


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command has printed, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def _env_text(bed: Bed, ips: list[str], variables: Mapping[str, str]) -> str:
    """The repository's settings, with the bed's addresses and an identity of their own."""
    values = {
        key: value
        for key, value in config.read(ENV_FILE, {}).items()
        if not config.REPLICA_KEY.fullmatch(key)
    }
    for index, ip in enumerate(ips):
        values |= {
            f"{PREFIX}{index}_CONTAINER_NAME": f"tigerbeetle-{index}",
            f"{PREFIX}{index}_IP": ip,
            f"{PREFIX}{index}_PORT": str(PORT),
        }
    values |= {
        f"{PREFIX}ADDRESSES": ",".join(f"{ip}:{PORT}" for ip in ips),
        f"{PREFIX}SUBNET": str(bed.subnet),
        f"{PREFIX}CLUSTER_ID": str(CLUSTER_ID),
        f"{PREFIX}AUTH_TOKEN": "of-the-test-bed-alone",
        f"{PREFIX}CACHE_GRID": "64MiB",
        f"{PREFIX}MEMLOCK": memlock(),
    }
    values |= {f"{PREFIX}{key}": value for key, value in variables.items()}
    return "".join(f"{key}={value}\n" for key, value in values.items())
