"""Checks without impact: each raises, with what was expected and found, before any change."""

from __future__ import annotations

import os
import shutil

import psutil
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError

from cluster import config
from cluster.checks import fitness
from cluster.config.inventory import Deployment
from cluster.runtimes import processes
from cluster.runtimes.base import ReplicaProcess
from cluster.tigerbeetle import binary
from tasks import data_file
from tasks.support.here import deployment_here, guarded, is_yes
from tasks.support.observed import is_first_host, observed, plan_of_all

#: A formatted, still empty data file is 1.063 GiB, all of it allocated; leave room to grow.
DATA_FILE_BYTES = 1_280 * 1024**2


@deploy("Check the state directory")
def check_state_directory() -> None:
    """Ours alone, writable, and with a path short enough for supervisor's socket."""
    deployment = deployment_here()
    length = len(str(processes.socket_path(deployment)))
    if length > processes.SOCKET_PATH_MAX:
        raise DeployError(
            f"{config.PREFIX}DATA_DIR: expected a socket path of at most "
            f"{processes.SOCKET_PATH_MAX} characters, found {length}: "
            f"{processes.socket_path(deployment)}. Fix: set it to a shorter directory"
        )
    existing = deployment.state_dir
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DeployError(
            f"{config.PREFIX}DATA_DIR: expected a directory that can be written, found {existing} "
            "without permission. Fix: set it to a directory of your own"
        )


@deploy("Check the server program")
def check_server() -> None:
    """It exists, runs, and is the configured release; the client is not newer."""
    deployment = deployment_here()
    with guarded():
        server = binary.command(deployment)
        binary.check_release(binary.release_of(server, deployment.engine), deployment.cluster)


@deploy("Check the data files")
def check_data_files() -> None:
    """None is foreign, damaged, or lost among others."""
    with guarded():
        data_file.plan(deployment_here())


@deploy("Check the ports")
def check_ports() -> None:
    """Each replica's address is free, or held by that replica."""
    deployment = deployment_here()
    states = processes.states(deployment) or {}
    orphans = processes.orphans(deployment)
    for replica in deployment.cluster.replicas:
        if replica.index in states and states[replica.index].pid:
            continue
        if replica.index in orphans:
            raise DeployError(
                f"replica {replica.index}: expected it under its supervisor, found it as pid "
                f"{orphans[replica.index]} without one. "
                f"Fix: make down INVENTORY={deployment.file}"
            )
        holder = processes.listener(str(replica.ip), replica.port)
        if holder:
            raise DeployError(
                f"{config.PREFIX}{replica.index}_PORT: expected {replica.address} to be free, "
                f"found {holder} listening. Fix: stop it, or change the port here and in "
                f"{config.PREFIX}ADDRESSES"
            )


@deploy("Check the servers")
def check_servers() -> None:
    """Each by itself, all together, and what their data files allow; nothing is changed yet.

    In this order, on one host for all: a port that another program holds looks to its peers like
    a cluster that lives there, and only the first refusal is heard.
    """
    deployment = deployment_here()
    with guarded():
        seen = observed(deployment)
        if is_first_host():
            for index, server in seen.items():
                fitness.check_server(deployment, index, server)
            fitness.check_together(deployment, seen)
            plan_of_all(deployment, is_asked_for=is_yes("bootstrap"))


@deploy("Check the room in memory and on disk")
def check_room() -> None:
    """Enough of both for the replicas that do not run yet. The emulator needs little."""
    deployment = deployment_here()
    if deployment.engine == "emulator":
        return
    states = processes.states(deployment) or {}
    starting = [r for r in deployment.cluster.replicas if not _is_up(states, r.index)]
    memory_needed = len(starting) * config.memory_bytes(deployment.cluster)
    _require("memory", memory_needed, psutil.virtual_memory().available, _MEMORY_FIX)
    absent = [r for r in starting if not processes.files_of(deployment, r.index).data.exists()]
    free = shutil.disk_usage(_nearest_existing(deployment)).free
    _require("disk", len(absent) * DATA_FILE_BYTES, free, _DISK_FIX)


_MEMORY_FIX = f"free some, lower {config.PREFIX}CACHE_GRID, or use inventories/emulator.py"
_DISK_FIX = f"free some, or set {config.PREFIX}DATA_DIR to a larger disk"


def _require(what: str, needed: int, available: int, fix: str) -> None:
    if available < needed:
        raise DeployError(
            f"{what}: expected {needed / 1024**3:.1f} GiB free for the replicas to start, "
            f"found {available / 1024**3:.1f} GiB. Fix: {fix}"
        )


def _is_up(states: dict[int, ReplicaProcess], index: int) -> bool:
    return index in states and states[index].is_running


def _nearest_existing(deployment: Deployment) -> str:
    directory = deployment.state_dir
    while not directory.exists():
        directory = directory.parent
    return str(directory)
