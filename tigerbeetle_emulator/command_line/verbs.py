"""The verbs of the command line: what each takes, and what of it can be meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..server.addresses import REPLICAS_MAX
from . import start
from .flags import PATH, Flag, UsageError, Values, read
from .start import Start
from .values import integer

GENUINE_VERBS = (
    *("format", "recover", "start", "version", "repl", "benchmark", "inspect", "multiversion"),
    "amqp",
)
_INSPECT_VERBS = (
    *("constants", "metrics", "op", "superblock", "wal", "replies", "grid", "manifest", "tables"),
    "integrity",
)
_STANDBYS_MAX = 6


class Format(NamedTuple):
    """Create a data file. `cluster` is None for a random one."""

    path: Path
    cluster: int | None
    replica: int
    replica_count: int
    ignored: list[str]  # flags that change nothing here


class Version(NamedTuple):
    """Print the release."""

    verbose: bool


class Inspect(NamedTuple):
    """Print what a data file belongs to."""

    path: Path


class Help(NamedTuple):
    """Print all verbs and options."""


Command = Format | Start | Version | Inspect | Help

VERSION = [Flag("--verbose")]
FORMAT = [
    Flag("--cluster", integer(128)),
    Flag("--replica", integer(8)),
    Flag("--standby", integer(8)),
    Flag("--replica-count", integer(8), required=True),
    Flag("--development"),
    Flag("--log-debug"),
]


def read_command(arguments: Sequence[str]) -> Command:
    """What a command line asks for. Raises UsageError."""
    verb, rest = _verb(arguments, GENUINE_VERBS), arguments[1:]
    if verb == "format":
        return _format(read(rest, FORMAT, PATH))
    if verb == "start":
        return start.start(read(rest, start.FLAGS, PATH))
    if verb == "version":
        return Version(read(rest, VERSION).get("--verbose", False))
    if verb == "inspect":
        what = _verb(rest, _INSPECT_VERBS)
        if what == "superblock":
            return Inspect(Path(read(rest[1:], [], PATH)[PATH]))
        verb = f"inspect {what}" if what else ""
    if not verb:
        return Help()
    raise UsageError(
        f"the emulator has no '{verb}'; it has format, start, version and inspect superblock"
    )


def _verb(arguments: Sequence[str], known: tuple[str, ...]) -> str:
    """The first argument, or "" for the question what there is."""
    if not arguments:
        expected = ", ".join(f"'{verb}'" for verb in known[:-1])
        raise UsageError(f"subcommand required, expected {expected}, or '{known[-1]}'")
    verb = arguments[0]
    if verb in ("-h", "--help"):
        return ""
    if verb not in known:
        raise UsageError(f"unknown subcommand: '{verb}'; --help shows all")
    return verb


def _format(given: Values) -> Format:
    count = given["--replica-count"]
    if not count:
        raise UsageError("--replica-count: value needs to be greater than zero")
    _at_most("--replica-count", count, REPLICAS_MAX)
    index = _index(given.get("--replica"), given.get("--standby"), count)
    return Format(Path(given[PATH]), given.get("--cluster"), index, count, _ignored(given))


def _index(replica: int | None, standby: int | None, count: int) -> int:
    """Which of the members the file is for: a replica, or a standby behind `count` of them."""
    if replica is not None and standby is not None:
        raise UsageError("--standby: conflicts with '--replica'; give one of them")
    if replica is not None:
        _at_most("--replica", replica, count - 1)
        return replica
    if standby is None:
        raise UsageError("--replica: argument is required")
    if standby < count:
        raise UsageError(f"--standby: value is too small ({standby}), at least {count} is required")
    _at_most("--standby", standby, count + _STANDBYS_MAX - 1)
    return standby


def _at_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise UsageError(f"{name}: value is too large ({value}), at most {most} is allowed")


def _ignored(given: Values) -> list[str]:
    """The flags that change nothing here."""
    return [name for name in given if given[name] is True]
