"""What tasks do on their hosts: shell lines now or in their turn, calls, and what they tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyinfra import host, logger
from pyinfra.api import StringCommand
from pyinfra.api.host import Host
from pyinfra.connectors.util import CommandOutput
from pyinfra.operations import python, server


def shell(name: str, *commands: str, **options: Any) -> None:
    """Run shell lines on the current task's host, when it is their turn."""
    server.shell(name=name, commands=[*commands], **options)


def call_once(name: str, function: Callable[..., object], **arguments: Any) -> None:
    """Call a function, whatever the number of hosts: it is about the cluster."""
    python.call(name=name, function=function, _run_once=True, **arguments)


def run_now(
    command: str | StringCommand, member: Host = host, **options: Any
) -> tuple[bool, CommandOutput]:
    """Run a shell line now, as root on a server: whether it succeeds, and what it says."""
    return member.run_shell_command(command, _sudo=is_sudo(member), **options)


def is_sudo(member: Host = host) -> bool:
    """Root is had with sudo there."""
    return bool(member.data.get("_sudo"))


def tell(said: str) -> None:
    """Say it under the operation that runs."""
    logger.info(f"    {said}")
