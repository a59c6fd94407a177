"""Metrics that are kept in files, ``*.prom``: when the newest backup was taken, and the like.

Read at every scrape, as the node exporter's textfile collector does: they survive every restart.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families


def families(directory: Path) -> tuple[list[Metric], int]:
    """What all files say, one family a name; and how many files could not be read."""
    found: dict[str, Metric] = {}
    unread = 0
    for file in sorted(directory.glob("*.prom")):
        try:
            said = [*text_string_to_metric_families(file.read_text())]
        except (OSError, ValueError, LookupError):
            unread += 1
            continue
        for family in said:
            found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            found[family.name].samples += family.samples
    return [*found.values()], unread
