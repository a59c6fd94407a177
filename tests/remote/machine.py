"""One server of the test bed: how it is reached, and how it is read by another route."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import docker

#: A user who may do everything through sudo; root logs in as well. Both by key alone.
ADMIN = "admin"

_SSH_TIMEOUT_S = 600
_BOOT_TIMEOUT_S = 900


@dataclass(frozen=True)
class Machine:
    """A container that is a server: systemd is its PID 1, and its files survive `switch_off`."""

    name: str
    container: str
    ip: str
    ssh_config: Path

    def ssh(self, script: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a shell line as a person would: over SSH, by the session's key."""
        return subprocess.run(
            ["ssh", "-F", str(self.ssh_config), "-l", user, self.name, script],
            text=True,
            capture_output=True,
            timeout=_SSH_TIMEOUT_S,
            check=False,
        )

    def inside(
        self, script: str, timeout_s: float = _SSH_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line as root through the engine: the route that no task takes."""
        return docker("exec", self.container, "sh", "-c", script, timeout_s=timeout_s)

    def read(self, script: str) -> str:
        """What a shell line prints, by the engine. Raises AssertionError when it fails."""
        done = self.inside(script)
        assert done.returncode == 0, f"{self.name}: {script}: {done.stderr or done.stdout}"
        return done.stdout

    def reaches(self, ip: str, port: int) -> bool:
        """True when ``ip:port`` accepts a TCP connection from here within three seconds."""
        return self.inside(f"nc -z -w 3 {ip} {port}").returncode == 0

    def switch_off(self) -> None:
        """Pull the plug: nothing is told, nothing is flushed."""
        assert docker("kill", self.container).returncode == 0

    def switch_on(self) -> None:
        """Boot it, with the files that it had. Raises Expired."""
        assert docker("start", self.container).returncode == 0
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until everything that starts at boot has started. Raises Expired."""
        wait_until(self._state, what=f"{self.name} to boot", timeout_s=_BOOT_TIMEOUT_S)

    def _state(self) -> tuple[bool, str]:
        done = self.inside("systemctl is-system-running")
        seen = (done.stdout or done.stderr).strip()
        if seen == "degraded":
            failed = self.inside("systemctl list-units --failed --plain --no-legend").stdout
            raise AssertionError(f"{self.name} has booted without {failed}")
        return seen == "running", seen
