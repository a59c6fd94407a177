"""What the tests of the monitoring host look at, and give it to see."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from cluster.tigerbeetle.waiting import wait_until
from monitoring import host as monitoring_host
from tests.remote.bed import Bed
from tests.remote.machine import Machine

STATSD_PORT, PROMETHEUS_PORT = 8125, 9090
UNITS = [monitoring_host.unit(name) for name in monitoring_host.UNITS]

#: A small file system that a test fills.
DISK = "/srv/small"

#: In place of an Alertmanager, what writes down what it is told.
RECEIVER = """
import http.server
class Print(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.path, self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", 9093), Print).serve_forever()
"""


def query(bed: Bed, expression: str) -> list[dict[str, Any]]:
    """An instant query's vector, asked on the host itself; empty while Prometheus only starts."""
    text = urllib.parse.urlencode({"query": expression})
    address = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?{text}"
    done = bed.monitor.inside(f"curl -sf -m 10 '{address}'")
    found: list[dict[str, Any]] = json.loads(done.stdout)["data"]["result"] if done.stdout else []
    return found


def values(bed: Bed, expression: str) -> dict[str, str]:
    """Replica → value, of an instant query."""
    return {one["metric"].get("replica", ""): one["value"][1] for one in query(bed, expression)}


def firing(bed: Bed) -> set[tuple[str, str]]:
    """(alert, replica) of the replicas' own alerts that fire now."""
    found = query(bed, 'ALERTS{alertstate="firing", replica!=""}')
    return {(one["metric"]["alertname"], one["metric"]["replica"]) for one in found}


def full_disks(bed: Bed) -> set[tuple[str, str]]:
    """(server, mount point) of the alerts on full disks that fire now, on the tests' own disk."""
    alert = 'ALERTS{alertstate="firing", alertname="TigerBeetleDiskNearlyFull"}'
    found = [one["metric"] for one in query(bed, alert)]
    return {(m["instance"], m["mountpoint"]) for m in found if m["mountpoint"] == DISK}


def until(condition: Callable[[], object], expected: object, timeout_s: float) -> float:
    """Wait until the condition is what is expected; for how long (seconds)."""
    started = time.monotonic()
    wait_until(
        lambda: ((seen := condition()) == expected, str(seen)),
        what=str(expected),
        timeout_s=timeout_s,
        interval_s=1,
    )
    return time.monotonic() - started


def lives(host: Machine) -> str:
    """Each unit's process and when it was started."""
    return host.read(f"systemctl show --property=MainPID,ExecMainStartTimestamp {' '.join(UNITS)}")


def listeners(host: Machine) -> set[str]:
    """All that listens there, but SSH and Docker's resolver."""
    found = host.read("ss -Hltun | awk '{ print $1, $5 }'").splitlines()
    return {line for line in found if not line.endswith(":22") and "127.0.0.11" not in line}
