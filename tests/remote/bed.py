"""The test bed: servers as containers on a network of their own, removed at the end.

A host for each replica, a client, and an outsider that must get nowhere; a monitoring host and load
hosts where they are asked for. When they start they hold nothing of this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path

from tests.docker.sandbox import docker, lacks_engine
from tests.leases import free_subnet, servers
from tests.remote import image
from tests.remote.image import Flavour
from tests.remote.machine import ADMIN, Machine

#: Name → last number of its address. The control machine, which is this one, has number 1.
HOSTS = {f"host-{index}": 10 + index for index in range(6)}
OTHERS = {"client": 20, "outsider": 30}
MONITOR, MONITOR_NUMBER = "monitor", 40
LOAD_HOSTS = {f"load-{index}": 50 + index for index in range(3)}

#: What systemd and a nested engine need. `--privileged` is more, and cannot be had everywhere.
_FLAGS = (
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
)

_SSH_CONFIG = """\
Host {name}
  HostName {ip}
  HostKeyAlias {ip}
"""
_SSH_CONFIG_FOR_ALL = """\
Host *
  User root
  IdentityFile {key}
  IdentitiesOnly yes
  UserKnownHostsFile {known_hosts}
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 10
"""


@cache
def lacks_bed() -> str | None:
    """Why no test bed can be had here; None when it can."""
    if reason := lacks_engine():
        return reason
    if image.root() is None:
        return f"no image to make test hosts of is here: docker pull {image.ROOTS[1]}"
    for program in ("ssh", "ssh-keygen"):
        try:
            subprocess.run([program, "-?"], capture_output=True, timeout=10, check=False)
        except FileNotFoundError:
            return f"no {program} command: install openssh-client"
    return None


@dataclass(frozen=True)
class Bed:
    """The machines, and how this one logs in to them."""

    flavour: Flavour
    network: str
    subnet: IPv4Network
    directory: Path
    machines: dict[str, Machine]
    #: Of this machine: where the hosts keep their data files, instead of on their own disks.
    data: Path | None = None

    @property
    def hosts(self) -> list[Machine]:
        """Those for the replicas, in order."""
        return [machine for name, machine in self.machines.items() if name in HOSTS]

    @property
    def client(self) -> Machine:
        """A machine that a deployment may list as a client."""
        return self.machines["client"]

    @property
    def outsider(self) -> Machine:
        """A machine on the same network that no deployment lists."""
        return self.machines["outsider"]

    @property
    def load_hosts(self) -> list[Machine]:
        """Those that send a load. None in a bed without."""
        return [machine for name, machine in self.machines.items() if name in LOAD_HOSTS]

    @property
    def monitor(self) -> Machine:
        """The monitoring host. Raises KeyError in a bed without one."""
        return self.machines[MONITOR]

    @property
    def control(self) -> str:
        """The address that this machine has in the hosts' eyes."""
        return str(self.subnet[1])

    @property
    def key(self) -> Path:
        """The private key that opens root and the admin on every machine."""
        return self.directory / "key"

    @property
    def known_hosts(self) -> Path:
        """The machines' own keys, as read from their disks."""
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``: every machine by name, trusted by its key alone."""
        return self.directory / "ssh_config"

    def renew(self, *names: str) -> None:
        """Replace these, or all hosts, by new ones of the same address, bare as on day one."""
        chosen = names or [host.name for host in self.hosts]
        docker("rm", "--force", "--volumes", *(self.machines[name].container for name in chosen))
        self.make(chosen)

    def make(self, names: Sequence[str]) -> None:
        """Start machines, and let us in. Raises AssertionError and Expired."""
        for name in names:
            machine = self.machines[name]
            flavour = self._flavour_of(name)
            storage: tuple[str, ...] = _engine_storage() if flavour == "engine" else ()
            if self.data and name in HOSTS:
                storage = (*storage, f"--volume={self.data}/{name}:/var/lib/tigerbeetle")
            made = docker(
                "run",
                "--detach",
                f"--name={machine.container}",
                f"--hostname={name}",
                f"--network={self.network}",
                f"--ip={machine.ip}",
                *_FLAGS,
                *storage,
                image.of(flavour),
            )
            assert made.returncode == 0, made.stderr
        for name in names:
            self.machines[name].wait_until_up()
            self._let_in(self.machines[name])
        self._learn_keys()

    def _flavour_of(self, name: str) -> Flavour:
        """Without a replica on it, a machine needs no engine of its own."""
        if name == MONITOR:
            return "monitor"
        return self.flavour if name in HOSTS else "bare"

    def _let_in(self, machine: Machine) -> None:
        """Authorise the session's key for root and the admin."""
        public = self.key.with_suffix(".pub").read_text().strip()
        for user, home in (("root", "/root"), (ADMIN, f"/home/{ADMIN}")):
            keys = f"{home}/.ssh/authorized_keys"
            machine.read(f"echo '{public}' >{keys} && chown {user} {keys} && chmod 600 {keys}")

    def _learn_keys(self) -> None:
        keys = [
            f"{m.ip} {m.read('cat /etc/ssh/ssh_host_ed25519_key.pub')}"
            for m in self.machines.values()
        ]
        self.known_hosts.write_text("".join(keys))


@contextmanager
def make_bed(
    flavour: Flavour,
    *,
    hosts: int = 3,
    load_hosts: int = 0,
    with_monitor: bool = False,
    data: Path | None = None,
) -> Iterator[Bed]:
    """Hosts, a client and an outsider, up. They go at the end, with all that is on them.

    It waits until the kernel has room for them: see ``leases.servers``.
    """
    numbers = dict(list(HOSTS.items())[:hosts]) | OTHERS
    numbers |= dict(list(LOAD_HOSTS.items())[:load_hosts])
    if with_monitor:
        numbers[MONITOR] = MONITOR_NUMBER
    token = f"ws-bed-{os.getpid()}-{flavour}"
    with servers(len(numbers)), ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ws-bed-")))
        subnet = free_subnet()
        made = docker("network", "create", f"--subnet={subnet}", token)
        assert made.returncode == 0, made.stderr
        stack.callback(docker, "network", "rm", token)
        config = directory / "ssh_config"
        machines = {
            name: Machine(name, f"{token}-{name}", str(subnet[number]), config)
            for name, number in numbers.items()
        }
        containers = [machine.container for machine in machines.values()]
        stack.callback(docker, "rm", "--force", "--volumes", *containers)
        bed = Bed(flavour, token, subnet, directory, machines, data)
        _write_ssh_files(bed)
        bed.make(list(numbers))
        yield bed


def _write_ssh_files(bed: Bed) -> None:
    """A key pair, and the configuration that uses it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", bed.network, "-f", str(bed.key)],
        check=True,
        timeout=30,
    )
    hosts = [_SSH_CONFIG.format(name=m.name, ip=m.ip) for m in bed.machines.values()]
    everywhere = _SSH_CONFIG_FOR_ALL.format(key=bed.key, known_hosts=bed.known_hosts)
    bed.ssh_config.write_text("".join([*hosts, everywhere]))


def _engine_storage() -> tuple[str, str]:
    """A volume, for overlay cannot lie on overlay; and this machine's own Compose plugin."""
    client = json.loads(docker("info", "--format={{json .ClientInfo}}").stdout)
    plugin = next(p["Path"] for p in client["Plugins"] if p["Name"] == "compose")
    where = "/usr/local/lib/docker/cli-plugins/docker-compose"
    return "--volume=/var/lib/docker", f"--volume={plugin}:{where}:ro"
