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

from cluster import REPOSITORY, config
from cluster.config import ENV_FILE, PREFIX, inventory
from cluster.config.deployment import Deployment
from tests.docker.sandbox import BASES
from tests.remote.bed import Bed
from tests.remote.machine import ADMIN, Machine

#: Every replica's port: on servers they may share one.
PORT = 3000
CLUSTER_ID = 2**100 + 7

_BIN = Path(sys.executable).parent
_TIMEOUT_S = 1700
#: A row of pyinfra's results: operation, hosts, successes, errors, unchanged; "-" is none.
_ROW = re.compile(r"^    (?!Grand total)(\S.*?) +\d+ +(\d+|-) +(?:\d+|-) +(?:\d+|-) *$", re.M)
_WAITING = "Wait until the cluster commits"


@dataclass
class Site:
    """One cluster described for the bed's hosts. Nothing happens until a command is typed."""

    bed: Bed
    runtime: str = "systemd"
    #: Settings of the inventory that are not the bed's usual ones.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Variables of the env file that are not the repository's, without their prefix.
    variables: dict[str, str] = field(default_factory=dict)
    #: What a person has set in the environment in which the commands are typed.
    exported: dict[str, str] = field(default_factory=dict)
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
        """The process environment of every command: no settings but the test's."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        records = {"RECORDS_DIR": str(self.bed.directory / "records")}
        return own | records | {"INVENTORY": str(self.inventory)} | self.exported

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
            [path, *command[1:]],
            cwd=REPOSITORY,
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def pyinfra(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``pyinfra --yes INVENTORY ARGUMENTS``; ``--data`` may be among them."""
        return self.run("pyinfra", "--yes", str(self.inventory), *arguments)

    def up(self, *, bootstrap: bool = False) -> subprocess.CompletedProcess[str]:
        """What ``make up`` types, with BOOTSTRAP=yes for the first time."""
        return self.run(*self.up_command(bootstrap=bootstrap))

    def up_command(self, *, bootstrap: bool = False) -> list[str]:
        """The same, for who wants to interrupt it."""
        data = ["--data", "bootstrap=yes"] if bootstrap else []
        return ["pyinfra", "--yes", *data, str(self.inventory), "deploy.py"]

    def build_image(self) -> None:
        """Have our image here, to be shipped."""
        exported = {f"{PREFIX}{key}": value for key, value in self.variables.items()}
        done = subprocess.run(
            ["make", "compose-tb-build"],
            cwd=REPOSITORY,
            env=self.environ | exported,
            text=True,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, said(done)[-3000:]

    def with_emulator(self) -> Site:
        """The emulator instead of TigerBeetle: where no replication is in question."""
        self.variables |= BASES["emulator"]  # its image, for runtime="docker"
        return self.write(engine="emulator")


def changes(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The operations that have changed something, by pyinfra's own table.

    It counts every call of a function as a change; the one that only waits is none.
    """
    assert "Grand total" in said(done), said(done)[-3000:]
    changed = [row[1] for row in _ROW.finditer(said(done)) if row[2] != "-"]
    return [name for name in changed if not name.endswith(_WAITING)]


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command has printed, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def prints(host: Machine) -> set[str]:
    """All that a deploy could change on a host, as lines of which one differs when anything did."""
    return set(
        host.read(
            "find /etc /usr/local /opt /root /srv /var/lib -xdev"
            " -not -path '/var/lib/docker*' -not -path '/var/lib/containerd/*'"
            " -not -path '/var/lib/systemd/*'"
            " -not -path '/var/lib/apt/*' -not -path '/var/lib/tigerbeetle/*'"
            " -type f -printf '%p %s %C@ %U %m\\n' | sort;"
            # A replica that runs writes into its own data file.
            " find /var/lib/tigerbeetle -printf '%p %U %m\\n' 2>/dev/null | sort;"
            " getent passwd; nft list tables 2>/dev/null;"
            " systemctl list-units --plain --no-legend '*tigerbeetle*'; "
            " ss -Hltn | awk '{ print $4 }'"
        ).splitlines()
    )


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
    }
    values |= {f"{PREFIX}{key}": value for key, value in variables.items()}
    return "".join(f"{key}={value}\n" for key, value in values.items())
