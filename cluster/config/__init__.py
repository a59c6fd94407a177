"""What the cluster should be: the env file as a validated ``Cluster``, inventories as deployments.

This is the room's face: ``config.load()``, ``config.Cluster``.
"""

from cluster.config.loading import ENV_FILE, REPLICA_KEY, load, load_or_exit, parse, read, shown
from cluster.config.model import (
    EMULATOR_IMAGE,
    PREFIX,
    Cluster,
    Replica,
    addresses,
    memory_bytes,
    size_bytes,
)

__all__ = [
    "EMULATOR_IMAGE",
    "ENV_FILE",
    "PREFIX",
    "REPLICA_KEY",
    "Cluster",
    "Replica",
    "addresses",
    "load",
    "load_or_exit",
    "memory_bytes",
    "parse",
    "read",
    "shown",
    "size_bytes",
]
