"""``make monitor-status``: Prometheus' targets, and the alerts that fire. Exit code 1 if one fires,
4 if Prometheus does not answer.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster import config
from cluster.config import inventory
from cluster.refusal import Refusal
from cluster.runtimes import tunnel
from cluster.runtimes.ssh import SshError
from monitoring import host, stack

_TIMEOUT_S = 5


def ask(base: str, path: str) -> Any:
    """The ``data`` of a Prometheus API answer. Raises OSError."""
    with urllib.request.urlopen(f"{base}/api/v1/{path}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)["data"]


def _base() -> str:
    """Prometheus' address, through SSH where it is on a monitoring host. Raises Refusal,
    SshError.
    """
    listen = stack.ports()
    deployment = inventory.read()
    if not deployment.servers:
        return f"http://127.0.0.1:{listen.prometheus}"
    there = host.prometheus_address(deployment, listen)
    return f"http://127.0.0.1:{tunnel.port_to(host.address(deployment), there)}"


def main() -> int:
    """Print both; the exit code says whether an alert fires."""
    try:
        base = _base()
        targets, alerts = ask(base, "targets")["activeTargets"], ask(base, "alerts")["alerts"]
    except SshError as error:
        print(f"error: {error}")
        return 4
    except Refusal as error:
        config.fail(error)
    except OSError as error:
        print(f"error: expected Prometheus at {base}, found: {error}. Fix: make monitor-up")
        return 4
    console = Console()
    table = Table("job", "instance", "health", "last error", title=f"Prometheus, {base}")
    for t in targets:
        table.add_row(t["labels"]["job"], t["labels"]["instance"], t["health"], t["lastError"])
    console.print(table)
    firing = [a for a in alerts if a["state"] == "firing"]
    for alert in firing:
        labels, notes = alert["labels"], alert["annotations"]
        console.print(
            f"[bold red]{labels['severity']}[/] {labels['alertname']}: {notes['summary']}"
        )
        console.print(f"    {notes['meaning']}\n    First: {notes['first_step']}")
        console.print(f"    {notes['runbook']}")
    console.print(f"{len(firing)} of {len(alerts)} pending or firing alerts fire")
    return 1 if firing else 0


if __name__ == "__main__":
    sys.exit(main())
