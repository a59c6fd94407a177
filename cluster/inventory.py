"""A pyinfra inventory, read as a Deployment: what runs where, and where clients reach it.

Inventories are pyinfra's own files; ``pyinfra INVENTORY debug-inventory --json`` prints what they
and the group data say without connecting anywhere, so this reads them exactly as a deploy does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cluster import config
from cluster.config import Cluster, ConfigError

REPOSITORY = Path(__file__).parent.parent
DEFAULT = "inventories/emulator.py"

Engine = Literal["tigerbeetle", "emulator"]
Runtime = Literal["process", "compose"]

#: The host data that an inventory file gives each host, and that describes its deployment.
HOST_DATA = ("deployment", "engine", "runtime")

#: What a person is told about each engine, wherever an engine is named.
ENGINE_LABELS: Mapping[Engine, str] = {
    "tigerbeetle": "TigerBeetle",
    "emulator": "EMULATOR (one node, no replication, not TigerBeetle)",
}


class Deployment(BaseModel):
    """One inventory's cluster. ``cluster.addresses`` is where clients on this machine reach it."""

    model_config = ConfigDict(frozen=True)

    name: str
    engine: Engine
    runtime: Runtime
    cluster: Cluster
    state_dir: Path

    @property
    def label(self) -> str:
        """The engine, as a report must name it."""
        return ENGINE_LABELS[self.engine]


def on_this_machine(name: str, *, engine: Engine, runtime: Runtime) -> list[tuple[str, object]]:
    """The hosts of an inventory file for this machine: one pyinfra host, all replicas on it.

    Validates the configuration first: a bad one ends the program with exit code 2.
    """
    config.load_or_exit()
    return [("@local", {"deployment": name, "engine": engine, "runtime": runtime})]


def of_host(data: Mapping[str, Any]) -> Deployment:
    """The Deployment that a pyinfra host's data describes. Raises ConfigError."""
    configured = config.load()
    is_published = data["runtime"] == "compose"
    cluster = configured.as_published() if is_published else configured.on_loopback()
    return Deployment(
        name=data["deployment"],
        engine=data["engine"],
        runtime=data["runtime"],
        cluster=cluster,
        state_dir=(REPOSITORY / cluster.data_dir / data["deployment"]).absolute(),
    )


def read(path: str | Path | None = None) -> Deployment:
    """Read an inventory file; default: $INVENTORY, else the emulator's. Raises ConfigError."""
    inventory = Path(path or os.environ.get("INVENTORY") or DEFAULT)
    file = inventory if inventory.is_absolute() else REPOSITORY / inventory
    if not file.is_file():
        known = ", ".join(sorted(str(f.relative_to(REPOSITORY)) for f in _inventories()))
        raise ConfigError("INVENTORY", expected=known, found=inventory, fix="name one of them")
    config.load()  # its own error is clearer than the inventory's about it
    command = [sys.executable, "-m", "pyinfra", str(file), "debug-inventory", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    if done.returncode != 0:
        message = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigError(
            "INVENTORY",
            expected=f"an inventory that loads: {inventory}",
            found=message[0].removeprefix("error: "),
            fix="correct what it names",
        )
    hosts = json.loads(done.stdout)
    return of_host(hosts[0]["data"])


def read_or_exit(path: str | Path | None = None) -> Deployment:
    """For programs: the Deployment, or the one-line error on stderr and exit code 2."""
    try:
        return read(path)
    except ConfigError as error:
        config.fail(error)


def _inventories() -> list[Path]:
    return [f for f in (REPOSITORY / "inventories").glob("*.py") if f.stem != "__init__"]


def main() -> None:
    """Validate ``$INVENTORY`` and say what it is; exit code 2 when it is bad."""
    deployment = read_or_exit()
    print(f"{deployment.name}: {deployment.label}, at {deployment.cluster.addresses}")


if __name__ == "__main__":
    main()
