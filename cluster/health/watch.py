"""``make watch``: the logs of all replicas as they grow, each line with what it means."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from cluster.config import inventory
from cluster.tigerbeetle import log_lines
from cluster.tigerbeetle.log_lines import Kind, Reading

STYLES: dict[Kind, str] = {
    "normal": "dim",
    "change": "bold cyan",
    "look": "yellow",
    "act": "bold red",
}
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


def main() -> int:
    """Follow until Ctrl-C; ``--all`` shows what is normal too."""
    parser = argparse.ArgumentParser(prog="python -m cluster.health.watch", description=__doc__)
    parser.add_argument("--inventory", help="default: $INVENTORY, else the emulator's")
    parser.add_argument("--all", action="store_true", help="the lines that are normal, too")
    options = parser.parse_args()
    inventory.read_or_exit(options.inventory)
    chosen = ["--inventory", options.inventory] if options.inventory else []
    command = [sys.executable, "-m", "cluster.health.logs", "--follow", *chosen]
    console = Console(highlight=False, soft_wrap=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as follow:
        try:
            assert follow.stdout is not None  # noqa: S101 - PIPE was asked for
            for replica, line in by_replica(follow.stdout):
                reading = log_lines.read(line)
                if options.all or reading.kind != "normal":
                    console.print(rendered(replica, reading))
            return follow.wait()
        except KeyboardInterrupt:
            follow.terminate()
            return 0


if __name__ == "__main__":
    sys.exit(main())
