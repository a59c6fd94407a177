"""A TigerBeetle emulator for tests and rehearsals: one node, no replication, not TigerBeetle.

`with tigerbeetle_emulator.run() as cluster:` gives a ledger at `cluster.address` that the genuine
client libraries talk to; `python -m tigerbeetle_emulator` is the same with a data file and the
genuine command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedded import Emulator, EmulatorDiedError, Snapshot
    from .launch import run
    from .server.faults import Faults

__all__ = ["Emulator", "EmulatorDiedError", "Faults", "Snapshot", "run"]


_HOMES = {
    "Emulator": ".embedded",
    "EmulatorDiedError": ".embedded",
    "Snapshot": ".embedded",
    "run": ".launch",
    "Faults": ".server.faults",
}


def __getattr__(name: str) -> Any:
    """Load on first use: every pytest run imports this package for its fixture."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
