"""Is a recorded history one that a strictly serializable ledger could have produced?

``check(history)`` is pure: it reads no clock, no file and no cluster. The claims:

- ``proof`` (shared with the load's audit): what was acknowledged is in the ledger once with the
  fields sent, refused operations left nothing, chains are whole, holds ended, balances add up.
- ``replay``: a single-threaded model, run in the order of the cluster's own timestamps, gives every
  answer that was given: each status, and each balance that was read.
- ``order``: timestamps are unique and agree with real time; what was posted never decreases.

Unknown outcomes are resolved by the final reads. The verdict is unknown where these are missing.
"""

from __future__ import annotations

from loadtests.proof.checker.final import FinalReads, check_complete, check_final
from loadtests.proof.checker.order import check_monotonic, check_real_time, check_timestamps
from loadtests.proof.checker.replay import check_replay
from loadtests.run.history import History
from loadtests.run.result import Check

__all__ = ["check"]


def check(history: History) -> list[Check]:
    """Every claim with its verdict, the offending operations named. Never raises."""
    final = FinalReads.of(history)
    checks = [check_complete(history, final)]
    if checks[0].verdict == "passed":
        checks += check_final(history, final)
    return [
        *checks,
        *check_replay(history, final),
        check_timestamps(history),
        check_real_time(history, final),
        check_monotonic(history),
    ]
