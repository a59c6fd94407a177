"""``make watch``: the logs of all replicas as they grow, each line with what it means."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

import click
from rich.console import Console
from rich.text import Text

from cluster.command import by_inventory
from cluster.config import inventory
from cluster.tigerbeetle import log_lines
from cluster.tigerbeetle.log_lines import Reading

STYLES = {"normal": "dim", "change": "bold cyan", "look": "yellow", "act": "bold red"}
#: `tail -F` names the file above its lines; Compose names the container before each.
_TAIL_HEADER = re.compile(r"^==> .*replica-(\d+)/\S+ <==$")
_PREFIX = re.compile(r"^(?:replica|\S*tigerbeetle)-(\d+)\s*\| ?(.*)$")


def by_replica(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(replica, line) from what following the logs prints; '?' before the first name."""
    replica = "?"
    for line in lines:
        text = line.rstrip("\n")
        if header := _TAIL_HEADER.match(text):
            replica = header[1]
        elif prefixed := _PREFIX.match(text):
            yield prefixed[1], prefixed[2]
        elif text:
            yield replica, text


def rendered(replica: str, reading: Reading) -> Text:
    """One line for the terminal: replica, kind, text, meaning."""
    style = STYLES[reading.kind]
    line = Text(f"{replica} ")
    line.append(f"{reading.kind:<6} ", style=style)
    line.append(reading.text, style="" if reading.kind == "normal" else style)
    if reading.meaning and reading.kind != "normal":
        line.append(f"  <- {reading.meaning}", style="italic")
    return line


@click.command()
@by_inventory
@click.option("--all", "with_normal", is_flag=True, help="The lines that are normal, too.")
def main(file: str, *, with_normal: bool) -> int:
    """Follow the logs of all replicas until Ctrl-C, each line with what it means."""
    inventory.read(file)
    command = [sys.executable, "-m", "cluster", "logs", "--follow", "--inventory", file]
    console = Console(highlight=False, soft_wrap=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as follow:
        try:
            assert follow.stdout is not None  # noqa: S101 - PIPE was asked for
            readers = defaultdict[str, log_lines.Reader](log_lines.Reader)
            for replica, line in by_replica(follow.stdout):
                reading = readers[replica].read(line)
                if with_normal or reading.kind != "normal":
                    console.print(rendered(replica, reading))
            return follow.wait()
        except KeyboardInterrupt:
            follow.terminate()
            return 0
