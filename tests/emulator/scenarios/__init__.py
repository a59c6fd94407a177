"""Scenarios: what a ledger must say, written down once and asked of every server.

Each function takes a `World` of its own and asserts. They run against the emulator's ledger in
process, against broken copies of it (which at least one scenario must convict), and, where a
genuine server is present, against that: it is the judge of the expectations themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.emulator.scenarios import accounts, chains, imported, pending, queries, transfers
from tests.emulator.world import World

Scenario = Callable[[World], None]

ALL: dict[str, Scenario] = {
    f"{module.__name__.rpartition('.')[2]}: {name.replace('_', ' ')}": scenario
    for module in (accounts, transfers, pending, chains, imported, queries)
    for name, scenario in vars(module).items()
    if callable(scenario) and getattr(scenario, "__module__", "") == module.__name__
    if not name.startswith("_")
}
