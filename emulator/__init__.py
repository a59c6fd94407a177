"""A TigerBeetle emulator for tests and rehearsals: one node, no replication, not TigerBeetle.

`with emulator.run() as cluster:` gives a ledger at `cluster.address` that the genuine client
libraries talk to; `python -m emulator` is the same with a data file and the genuine command line.
"""

from __future__ import annotations

from .library import Emulator, run

__all__ = ["Emulator", "run"]
