"""``make monitor-status``: Prometheus' targets, and the alerts that fire."""

from __future__ import annotations

import json
import re
import urllib.request
from http.client import HTTPException
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cluster.command import by_inventory
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import tunnel
from cluster.runtimes.ssh import SshError
from monitoring import host, stack

_TIMEOUT_S = 5


def ask(base: str, path: str) -> Any:
    """The ``data`` of a Prometheus API answer. Raises OSError, also for what is none."""
    try:
        with urllib.request.urlopen(f"{base}/api/v1/{path}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)["data"]
    except (HTTPException, ValueError, LookupError, TypeError):
        raise OSError("another program's answer") from None


def _base(deployment: Deployment) -> str:
    """Prometheus' address, through SSH where it is on a monitoring host. Raises Refusal,
    SshError.
    """
    listen = stack.ports()
    reached = host.place(deployment)
    if reached is None:
        return f"http://127.0.0.1:{listen.prometheus}"
    there = host.prometheus_address(deployment, listen)
    return f"http://127.0.0.1:{tunnel.port_to(reached, there)}"


def refuse_foreign(configuration: str, deployment: Deployment) -> None:
    """Refuse a Prometheus that watches another cluster, by what it has loaded. Pure."""
    whose = re.search(r"^ +deployment: ['\"]?(.*?)['\"]?$", configuration, re.MULTILINE)
    if whose and whose[1] != deployment.whose:
        raise Refusal(
            "Prometheus",
            expected=f"that of {deployment.whose}",
            found=f"that of {whose[1]}",
            fix="name its INVENTORY, or stop it and start this one's: "
            f"make monitor-up {deployment.named}",
        )


@click.command()
@by_inventory
def main(file: str) -> int:
    """Show Prometheus' targets, and the alerts that fire.

    Exit codes: 0 none fires, 1 one does, 2 bad configuration, or another cluster's Prometheus,
    4 Prometheus does not answer.
    """
    deployment = inventory.read(file)
    try:
        base = _base(deployment)
        refuse_foreign(ask(base, "status/config")["yaml"], deployment)
        targets, alerts = ask(base, "targets")["activeTargets"], ask(base, "alerts")["alerts"]
    except SshError as error:
        print(f"error: {error}")
        return 4
    except OSError as error:
        print(
            f"error: expected Prometheus at {base}, found: {error}. "
            f"Fix: make monitor-up {deployment.named}"
        )
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
