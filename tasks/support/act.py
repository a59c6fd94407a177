"""What tasks do on their hosts: shell lines now or in their turn, calls, and what they tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyinfra import host, logger
from pyinfra.api import State, StringCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.connectors.util import CommandOutput
from pyinfra.operations import python, server

from cluster.refusal import Refusal, refusal_of


def shell(name: str, *commands: str, **options: Any) -> None:
    """Run shell lines on the current task's host, when it is their turn."""
    server.shell(name=name, commands=[*commands], **options)


def call(name: str, function: Callable[..., object], **arguments: Any) -> None:
    """Call a function when it is its turn. What it refuses is said in its own words, and is all."""
    python.call(name=name, function=_answering(function), **arguments)


def call_once(name: str, function: Callable[..., object], **arguments: Any) -> None:
    """Call a function, whatever the number of hosts: it is about the cluster."""
    call(name, function, _run_once=True, **arguments)


def _answering(function: Callable[..., object]) -> Callable[..., bool]:
    """The same, as pyinfra calls one that answers whether it succeeds: an exception is a traceback.

    ``state`` and ``host`` are the names by which it knows.
    """

    def answer(state: State, host: Host, **arguments: Any) -> bool:
        try:
            function(**arguments)
        except (DeployError, Refusal, OSError) as error:
            said = str(error if isinstance(error, DeployError) else refusal_of(error))
            host.log_styled(said, fg="red", log_func=logger.error)
            return False
        return True

    return answer


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
