"""What the commands of ``python -m cluster`` share: their options, and the word before a loss."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from cluster import DEFAULT_INVENTORY
from cluster.refusal import Refusal

Command = TypeVar("Command", bound=Callable[..., object])


def by_inventory(command: Command) -> Command:
    """Give a command ``--inventory``, the file that says which cluster is meant."""
    return click.option(
        "--inventory",
        "file",
        envvar="INVENTORY",
        default=DEFAULT_INVENTORY,
        help="Which cluster; default: $INVENTORY, else the emulator's.",
    )(command)


def if_inventory(command: Command) -> Command:
    """The same, for a command on what says itself whose it is: None where nobody has named one."""
    return click.option(
        "--inventory",
        "file",
        envvar="INVENTORY",
        help="Nothing of another cluster; default: $INVENTORY.",
    )(command)


def say(what: str) -> None:
    """Tell how far a command has come."""
    print(f"  {what}", flush=True)


def chosen(replica: str | None, indexes: Sequence[int], fix: str = "name one of them") -> list[int]:
    """The replicas that ``--replica`` names: one, or all without it. Raises Refusal."""
    if replica is None:
        return list(indexes)
    known = [str(index) for index in indexes]
    if replica not in known:
        wanted = f"one of {', '.join(known)}"
        raise Refusal("REPLICA", expected=wanted, found=replica or "nothing", fix=fix)
    return [int(replica)]


def confirm(to: str, *, since: str, fix: str, nothing: str = "nothing was touched") -> None:
    """CONFIRM=yes, or the word at a terminal, before what cannot be taken back. Raises Refusal."""
    if os.environ.get("CONFIRM") == "yes":
        return
    if not sys.stdin.isatty():
        raise Refusal(f"CONFIRM: expected yes, since {since}, found nothing. Fix: {fix}")
    if input(f"Type yes to {to}: ").strip() != "yes":
        raise Refusal(f"not confirmed: {nothing}")
