"""A cluster to break: three genuine replicas behind ``Links``, monitored by real programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import REPOSITORY, config
from cluster.health import health
from cluster.health.health import ReplicaHealth
from cluster.tigerbeetle import binary, log, ping
from monitoring import stack
from tests.clusters import Sandbox
from tests.links import Links

LEDGER = 7
#: `monitor-up` that ends between the writing of its files and their use.
INTERRUPTED = """
from tasks import monitoring
monitoring.shell = lambda *words: None
monitoring.start()
"""


class Replicas:
    """Genuine replicas, each an own process whose links to the others can be bent."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.deployment = sandbox.deployment
        self.replicas = self.deployment.cluster.replicas
        self.links = Links([r.port for r in self.replicas])
        self._server = binary.command(self.deployment)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._directory = sandbox.directory
        for replica in self.replicas:
            subprocess.run(
                [
                    *self._server,
                    "format",
                    "--cluster=0",
                    f"--replica={replica.index}",
                    "--replica-count=3",
                    str(self._file(replica.index)),
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
            self.start(replica.index)

    def _file(self, index: int) -> Path:
        return self._directory / f"0_{index}.tigerbeetle"

    def start(self, index: int) -> None:
        """Start one, with the proxies for the others' addresses."""
        ports = [
            r.port if r.index == index else self.links.port[index, r.index] for r in self.replicas
        ]
        output = (self._directory / f"{index}.log").open("ab")
        self._processes[index] = subprocess.Popen(
            [
                *self._server,
                "start",
                "--cache-grid=64MiB",
                "--experimental",
                f"--addresses={','.join(f'127.0.0.1:{port}' for port in ports)}",
                f"--statsd={self.deployment.cluster.statsd}",
                str(self._file(index)),
            ],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        output.close()

    def wait_until_answering(self) -> None:
        """All answer a ping."""
        until(
            lambda: [r.index for r in self.replicas if not ping.ask(r, 0, 1.0)] == [],
            "all replicas to answer a ping",
            90,
        )

    def primary(self) -> int:
        """The index of the primary: the newest view's, modulo the number of replicas."""
        views = [pong.view for r in self.replicas if (pong := ping.ask(r, 0))]
        return max(views) % len(self.replicas)

    def backup(self) -> int:
        """The index of a replica that is not primary."""
        return (self.primary() + 1) % len(self.replicas)

    def health(self) -> list[ReplicaHealth]:
        """What `make status` makes of each of them."""
        pongs = [ping.ask(r, 0) for r in self.replicas]
        return [
            ReplicaHealth(
                replica=r,
                process="RUNNING",
                pid=self._processes[r.index].pid,
                port_open=health.port_answers(r),
                pong=pongs[r.index],
                log=log.parse((self._directory / f"{r.index}.log").read_text().splitlines()),
                newest_view=max(pong.view for pong in pongs if pong),
                seen_at=time.time(),
            )
            for r in self.replicas
        ]

    def signal(self, index: int, number: int) -> None:
        """Send a signal to one process."""
        self._processes[index].send_signal(number)
        if number == signal.SIGKILL:
            self._processes[index].wait(10)

    def close(self) -> None:
        """End every process and link."""
        for process in self._processes.values():
            process.kill()
            process.wait(10)
        self.links.close()


class Load:
    """Transfers, some ten requests a second, from a process of its own until it is closed."""

    def __init__(self, addresses: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOAD, addresses, str(LEDGER)],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)


_LOAD = """
import sys, time
import tigerbeetle as tb
addresses, ledger = sys.argv[1], int(sys.argv[2])
client = tb.ClientSync(cluster_id=0, replica_addresses=addresses)
client.create_accounts([tb.Account(id=i, ledger=ledger, code=1) for i in (11, 12)])
for _ in range(40_000):
    client.create_transfers([
        tb.Transfer(id=tb.id(), debit_account_id=11, credit_account_id=12, amount=1,
                    ledger=ledger, code=1) for _ in range(50)])
    time.sleep(0.02)
"""


class Monitoring:
    """Prometheus, exporters and the collector of a sandbox, asked through Prometheus' own API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.base = f"http://127.0.0.1:{stack.ports(sandbox.environ).prometheus}"
        started = sandbox.pyinfra("tasks.monitoring.start")
        assert started.returncode == 0, started.stderr[-2000:]

    def close(self) -> None:
        """Stop all of it."""
        stopped = self._sandbox.pyinfra("tasks.monitoring.stop")
        assert stopped.returncode == 0, stopped.stderr[-2000:]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's vector."""
        text = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.base}/api/v1/query?{text}", timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    def loaded(self) -> str:
        """The configuration with which Prometheus runs."""
        with urllib.request.urlopen(f"{self.base}/api/v1/status/config", timeout=10) as answer:
            text: str = json.load(answer)["data"]["yaml"]
        return text

    def firing(self, since: float | None = None) -> set[tuple[str, str]]:
        """(alert, replica or mountpoint) that fire now, or have fired since ``time.time()``."""
        alerts = 'ALERTS{alertstate="firing"}'
        if since is not None:
            alerts = f"count_over_time({alerts}[{max(5, int(time.time() - since))}s])"
        return self._subjects(alerts)

    def raised(self) -> set[tuple[str, str]]:
        """As ``firing``, and those that will fire when nothing changes."""
        return self._subjects("ALERTS")

    def _subjects(self, alerts: str) -> set[tuple[str, str]]:
        found = (one["metric"] for one in self.query(alerts))
        return {(m["alertname"], m.get("replica") or m.get("mountpoint", "")) for m in found}


def until(condition: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Wait, and return for how long; fails with what was awaited."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.5)
    return time.monotonic() - begun


class SmallDisk:
    """A file system of 64 MiB below a directory: something to fill."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self.path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "drill", str(self.path)],
            capture_output=True,
            check=False,
        )
        self.is_mounted = done.returncode == 0

    def fill(self, mebibytes: int) -> None:
        """Take so much of it."""
        (self.path / "ballast").write_bytes(bytes(mebibytes << 20))

    def empty(self) -> None:
        """Free it."""
        (self.path / "ballast").unlink()

    def close(self) -> None:
        """Unmount."""
        if self.is_mounted:
            subprocess.run(["umount", str(self.path)], check=True)


def ramp(links: Links, victim: int, stop: threading.Event) -> threading.Thread:
    """Hold back what the victim receives, half a second longer with every second."""

    def grow() -> None:
        while not stop.wait(0.1):
            for pair in links.pairs:
                if pair[1] == victim:
                    links.delay_s[pair] += 0.05

    thread = threading.Thread(target=grow, daemon=True)
    thread.start()
    return thread


def missing() -> str | None:
    """Why the drill cannot be held here; None when it can."""
    if not os.environ.get("MONITOR_DRILL"):
        return "the drill takes 8 minutes: make monitor-drill"
    absent = [known[0] for known in stack.PROGRAMS.values() if not any(map(shutil.which, known))]
    if absent:
        return f"apt-get install what is not here: {', '.join(absent)}"
    if binary.find_tigerbeetle(config.load()) is None:
        return "no genuine tigerbeetle in TIGERBEETLE_BIN or on PATH: make download"
    return None
