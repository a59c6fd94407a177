"""Env files: ``make init-env`` writes a private one; commands record in one what they found.

A private file has a cluster id and a token of its own, and is its owner's alone. The id is fixed
when the data files are formatted, so a file that is there is never written over. Nor is the one
beside it with the password of the backups' repository.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Sequence
from functools import partial
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path

import click

from cluster import REPOSITORY, config
from cluster.config import ENV_FILE, PREFIX, kept, loading, repository, rules
from cluster.refusal import Refusal

DEFAULT = "env/production.env"
PORT = 3000
_GIT_TIMEOUT_S = 30

#: All replicas' variables, each with the comment above them.
_REPLICAS = re.compile(rf"(?:(?:# Replica \d+ Configuration\n)?(?:{PREFIX}\d+_\w+=.*\n)+\n?)+")


def private(
    example: str,
    hosts: Sequence[IPv4Address] = (),
    port: int = PORT,
    password_file: Path | None = None,
) -> str:
    """The text of a private env file: ``example``'s, with a random cluster id and token.

    With ``hosts`` it describes one replica on each, all at ``port``; ``password_file`` is the
    repository's. Raises Refusal.
    """
    text = _set(example, f"{PREFIX}CLUSTER_ID", str(secrets.randbelow(2**128 - 1) + 1))
    text = _set(text, f"{PREFIX}AUTH_TOKEN", secrets.token_urlsafe())
    if password_file:
        text = _set(text, repository.PASSWORD_FILE, _quoted(config.shown(password_file)))
    if hosts:
        rules.check_replica_numbers(list(range(len(hosts))))
        text = _set(text, f"{PREFIX}ADDRESSES", ",".join(f"{ip}:{port}" for ip in hosts))
        text = _set(text, f"{PREFIX}SUBNET", str(smallest_network(hosts)))
        blocks = [_replica(index, ip, port) for index, ip in enumerate(hosts)]
        text = _REPLICAS.sub("\n".join(blocks) + "\n", text, count=1)
    text = text.replace("# The one place where the cluster is configured.", _HEAD, 1)
    return text.replace(" This published default is refused for production inventories.", "", 1)


_HEAD = """\
# PRIVATE: never commit it. Keep a copy where the backups are: without the cluster id, the clients
# and replicas of this cluster do not find each other.
#
# The place where this cluster is configured."""


def smallest_network(hosts: Sequence[IPv4Address]) -> IPv4Network:
    """The smallest network that holds all of them."""
    network = IPv4Network((hosts[0], 32))
    while not all(host in network for host in hosts):
        network = network.supernet()
    return network


def write_private(path: Path, text: str, what: str = "whose cluster id may be in use") -> None:
    """Write a file that only its owner can read, if there is none. Raises Refusal.

    ``what`` says why one that is there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        found, fix = f"one, {what}", "keep it, or name another with OUT="
        raise Refusal(str(path), expected="no file there", found=found, fix=fix) from None
    except OSError as error:
        wanted, fix = "a file that can be written", "name another with OUT="
        raise Refusal(str(path), expected=wanted, found=error, fix=fix) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def record(env_file: Path, variable: str, value: str) -> None:
    """Set one variable, keeping every other byte, and the file's mode. Raises Refusal.

    The variable must be there already.
    """
    changed = _set(loading.text_of(env_file), variable, value, str(env_file))
    kept.write(env_file, changed.encode(), mode=env_file.stat().st_mode & 0o777)


def _set(text: str, variable: str, value: str, where: str = "env/tigerbittle.env") -> str:
    line = re.compile(rf"^{re.escape(variable)}=.*$", re.MULTILINE)
    changed, count = line.subn(lambda _: f"{variable}={value}", text)
    if count != 1:
        wanted = f"one line {variable}="
        raise Refusal(where, expected=wanted, found=count, fix="restore the line, empty")
    return changed


def _quoted(path: str) -> str:
    """As Compose and python-dotenv both read it."""
    return path if re.fullmatch(r"[\w./~+-]+", path, re.ASCII) else f"'{path}'"


def _replica(index: int, ip: IPv4Address, port: int) -> str:
    return (
        f"# Replica {index} Configuration\n"
        f"{PREFIX}{index}_CONTAINER_NAME=tigerbeetle-{index}\n"
        f"{PREFIX}{index}_PORT={port}\n"
        f"{PREFIX}{index}_IP={ip}\n"
    )


def _addresses(names: Sequence[str]) -> list[IPv4Address]:
    """IPv4 addresses: TigerBeetle resolves no names. Raises Refusal."""
    found = []
    for name in names:
        try:
            found.append(IPv4Address(name))
        except AddressValueError:
            wanted = "IPv4 addresses, since TigerBeetle resolves no host names"
            fix = 'write HOSTS="10.0.0.11 10.0.0.12 10.0.0.13"'
            raise Refusal("HOSTS", expected=wanted, found=name, fix=fix) from None
    if len(set(found)) < len(found):
        fix = "name each host once: what fails with one host must be one replica"
        wanted = "a host of its own for each replica"
        raise Refusal("HOSTS", expected=wanted, found=" ".join(names), fix=fix)
    return found


def refuse_tracked(path: Path) -> None:
    """Refuse a path that git would commit. Raises Refusal."""
    if not path.is_relative_to(REPOSITORY):
        return
    try:
        asked = subprocess.run(
            ["git", "check-ignore", "--quiet", str(path)],
            cwd=REPOSITORY,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise Refusal(
            str(path),
            expected=f"git to say within {_GIT_TIMEOUT_S} s whether it ignores that path",
            found="no answer",
            fix="look at what holds git up, or name a path outside the repository",
        ) from None
    except OSError:
        return  # without git nothing can be committed here
    if asked.returncode == 1:  # 128: no git repository
        raise Refusal(
            str(path),
            expected="a path that git ignores, since the file holds secrets",
            found="one that it would commit",
            fix=f"use OUT={DEFAULT}, or env/NAME.local.env; of a password env/NAME.backup-password",
        )


@click.command()
@click.option("--out", type=Path, default=Path(DEFAULT), help=f"Default: {DEFAULT}.")
@click.option("--port", type=int, default=PORT, help=f"Of every replica; default: {PORT}.")
@click.argument("hosts", nargs=-1)
def main(out: Path, port: int, hosts: tuple[str, ...]) -> None:
    """Write a private env file, with a cluster id and a token of its own, and say what to do.

    HOSTS: one IPv4 address per replica, in replica order.
    """
    path = (REPOSITORY / kept.expanded(out)).absolute()
    refuse_tracked(path)
    addresses = _addresses(hosts)
    password_file = path.with_suffix(".backup-password")
    refuse_tracked(password_file)
    text = private(loading.text_of(ENV_FILE), addresses, port, password_file)
    on_servers = partial(rules.check_servers, is_development=False)
    place = on_servers if addresses else rules.check_one_machine
    cluster = config.parse(loading.values_of(text), check_place=place)
    if path.exists():  # before a password is written for it
        write_private(path, text)
    write_private(password_file, f"{secrets.token_urlsafe()}\n", "which a repository may have")
    write_private(path, text)
    print(
        f"{config.shown(path)}: cluster {cluster.id}, {len(cluster.replicas)} replicas at "
        f"{cluster.addresses}\n{config.shown(password_file)}: the password of its backups' "
        "repository; without it nobody restores them\n"
        "Only you can read both, and git ignores them: keep a copy elsewhere, apart from the "
        "repository."
    )
