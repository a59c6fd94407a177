"""The ledger at the end of a recorded run, from its final reads, and the proof over it."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadtests.proof import record
from loadtests.proof.proof import Proof
from loadtests.run.history import Account, History, Transfer
from loadtests.run.result import Check
from loadtests.wallet.packing import pack_accounts, pack_transfers


@dataclass(frozen=True)
class FinalReads:
    """What the final reads found, by id; ``queried`` are the transfers with the run's tag."""

    transfers: dict[int, Transfer] = field(default_factory=dict)
    accounts: dict[int, Account] = field(default_factory=dict)
    queried: tuple[Transfer, ...] = ()
    asked: frozenset[int] = frozenset()

    @classmethod
    def of(cls, history: History) -> FinalReads:
        """Collect them; a later read of an account replaces an earlier one."""
        transfers: dict[int, Transfer] = {}
        accounts: dict[int, Account] = {}
        queried: list[Transfer] = []
        asked: set[int] = set()
        for operation in history.operations:
            if not operation.final or operation.outcome != "ok":
                continue
            asked.update(operation.ids)
            transfers |= {one.id: one for one in operation.found_transfers}
            accounts |= {one.id: one for one in operation.found_accounts}
            if operation.kind == "query_transfers":
                queried += operation.found_transfers
        return cls(transfers, accounts, tuple(queried), frozenset(asked))


def check_complete(history: History, final: FinalReads) -> Check:
    """The recording ended in order, and the final reads asked for every id of the history."""
    name = "history complete"
    if not history.is_complete:
        detail = "the history was cut off: it has no end, or lacks operations before it"
        return Check(name=name, verdict="unknown", detail=detail)
    wanted = {one.id for op in history.operations for one in op.events}
    missing = sorted(wanted - final.asked)
    if missing or not wanted:
        named = ", ".join(map(hex, missing[:3]))
        detail = (
            f"{len(missing):,} ids were not read at the end: {named}" if missing else "it is empty"
        )
        return Check(name=name, verdict="unknown", detail=detail)
    detail = f"{len(history.operations):,} operations, {len(wanted):,} ids read at the end"
    return Check(name=name, verdict="passed", detail=detail)


def check_final(history: History, final: FinalReads) -> list[Check]:
    """The audit's own proof, over this history's record and final reads."""
    lines, _ = record.of_operations(history.operations)
    proof = Proof(record.Record([record.Part(lines)], record.tag_of(history.operations)))
    found = {one.id: one for one in (*final.queried, *final.transfers.values())}
    page = sorted(found.values(), key=lambda one: one.timestamp)
    proof.add_page(pack_transfers(page))
    asked = [one for op in history.operations for one in op.accounts]
    unique = {one.id: one for one in asked}
    accounts = [one for one in final.accounts.values() if one.id in unique]
    return proof.finish(pack_accounts(accounts), pack_accounts(unique.values()))
