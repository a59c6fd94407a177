"""The check of the checks: ledgers with one wrong rule each must be convicted by a scenario."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import tigerbeetle_emulator
from tests.emulator import scenarios
from tests.emulator.world import LedgerBackend, World


class Mutant(NamedTuple):
    """A rule, the module it is in, its text and the wrong one in its place."""

    rule: str
    module: str
    right: str
    wrong: str


MUTANTS = [
    Mutant("id max is no account id", "ledger/accounts", "account_id == ID_MAX", "False"),
    Mutant("limits exclude each other", "ledger/accounts", "== account_flags.LIMITS", "== 99"),
    Mutant(
        "flags are compared as they are",
        "ledger/accounts",
        '(15, "flags", Status.EXISTS_WITH_DIFFERENT_FLAGS),',
        "",
    ),
    Mutant(
        "imported accounts avoid transfers' times",
        "ledger/accounts",
        " or ledger.transfer_at(given)",
        "",
    ),
    Mutant(
        "the flag of a batch is its first's",
        "ledger/creates",
        "if event[-2] & rules",
        "if 0 & rules",
    ),
    Mutant("an imported time precedes the batch", "ledger/creates", "given >= last", "False"),
    Mutant(
        "a linked last event leaves a chain open", "ledger/creates", "index == count - 1", "False"
    ),
    Mutant(
        "a broken chain takes everything back", "ledger/creates", "ledger.discard_scope()", "pass"
    ),
    Mutant("members before the breaker fail too", "ledger/creates", "[_FAILED]) *", "[status]) *"),
    Mutant(
        "exists carries the stored time",
        "ledger/creates",
        "if status == rules.status.EXISTS:",
        "if False:",
    ),
    Mutant("a transient failure uses the id up", "ledger/creates", "in rules.transient", "in ()"),
    Mutant("a closed account is not plain", "protocol/records", " | account_flags.CLOSED\n", "\n"),
    Mutant(
        "debits stay within credits", "ledger/transfers", "debits > debit.credits_posted", "False"
    ),
    Mutant(
        "credits stay within debits", "ledger/transfers", "credits > credit.debits_posted", "False"
    ),
    Mutant(
        "the limit counts what is pending",
        "ledger/transfers",
        "debits_posted + debit.debits_pending",
        "debits_posted",
    ),
    Mutant("2^128 overflows a sum", "ledger/transfers", "(debits > U128_MAX", "(debits > 1 << 128"),
    Mutant("2^128 overflows a plain sum", "ledger/plain", "> U127_MAX", "> 1 << 128"),
    Mutant(
        "balancing leaves what is pending", "ledger/transfers", " - debit.debits_pending\n", "\n"
    ),
    Mutant(
        "a balancing transfer can find nothing",
        "ledger/transfers",
        "max(0, available)",
        "available",
    ),
    Mutant(
        "closing is for pending transfers",
        "ledger/transfers",
        "at_once and flags & transfer_flags.CLOSING,",
        "False,",
    ),
    Mutant("an imported transfer postdates", "ledger/transfers", "<= credit.timestamp", "< 0"),
    Mutant(
        "an imported hold cannot time out",
        "ledger/transfers",
        "event[9], Status.IMPORTED",
        "0, Status.IMPORTED",
    ),
    Mutant("2^128-1 posts everything", "ledger/pending", "U128_MAX if", "5 if"),
    Mutant("0 voids everything", "ledger/pending", "POST else 0", "POST else 5"),
    Mutant("a void is for the whole amount", "ledger/pending", "amount < all_held", "False"),
    Mutant("no more is posted than is held", "ledger/pending", "amount > all_held", "False"),
    Mutant(
        "a post is refused by a closed account", "ledger/pending", "& account_flags.CLOSED", "& 0"
    ),
    Mutant("a resolution is final", "ledger/pending", "ledger.pending[row] = POSTED", "pass"),
    Mutant("user data is inherited", "ledger/pending", "event[8] or held[8]", "event[8]"),
    Mutant("a passed timeout is final", "ledger/pending", "POSTED: Status", "EXPIRED + 1: Status"),
    Mutant(
        "the higher amount of a balancing transfer is the same",
        "ledger/duplicates",
        ">= moved",
        "< 0",
    ),
    Mutant(
        "flags come before other differences",
        "ledger/duplicates",
        "(12, Status.EXISTS_WITH_DIFFERENT_FLAGS),",
        "",
    ),
    Mutant(
        "voiding reopens accounts", "ledger/ledger", "flags & transfer_flags.CLOSING_DEBIT", "False"
    ),
    Mutant(
        "undone resolutions are pending",
        "ledger/ledger",
        "[self.transfers[event[5]]] = P",
        "[-9] = P",
    ),
    Mutant("undone accounts are gone", "ledger/ledger", "del self.accounts[account.id]", "pass"),
    Mutant("undone amounts are back", "ledger/ledger", "account.restore(balances)", "pass"),
    Mutant("undone ids are free", "ledger/ledger", "del self.transfers[event[0]]", "pass"),
    Mutant(
        "an expiry releases the amount",
        "ledger/ledger",
        "self.release_pending(event, self.accounts[event[1]], self.accounts[event[2]])",
        "pass",
    ),
    Mutant("imported times rise", "ledger/ledger", "timestamp <= newest", "False"),
    Mutant("a range of time includes its end", "ledger/queries", "bisect_right", "bisect_left"),
    Mutant(
        "reversed means descending", "ledger/queries", "if self.descending else", "if False else"
    ),
    Mutant(
        "only accounts with history have one",
        "ledger/queries",
        "& account_flags.HISTORY",
        "& 63 or True",
    ),
    Mutant(
        "an unknown filter flag finds nothing", "ledger/queries", " or flags >= 2 * reversing", ""
    ),
    Mutant(
        "a history shows the releases of holds", "ledger/history", "closed=False", "closed=None"
    ),
]


@contextmanager
def broken_copy(mutant: Mutant, directory: Path) -> Iterator[ModuleType]:
    """The emulator package with the mutant's rule replaced, under a name of its own."""
    name = "mutant_" + "".join(filter(str.isalnum, mutant.rule))
    copy = directory / name
    shutil.copytree(Path(tigerbeetle_emulator.__file__).parent, copy)
    path = copy / f"{mutant.module}.py"
    text = path.read_text()
    assert mutant.right in text, f"the rule is no longer written like this in {mutant.module}"
    path.write_text(text.replace(mutant.right, mutant.wrong))
    sys.path.insert(0, str(directory))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(directory))
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            del sys.modules[module]


def convictions(package: ModuleType) -> list[str]:
    """The scenarios that find something wrong."""
    found = []
    for name, scenario in scenarios.ALL.items():
        try:
            scenario(World(LedgerBackend(package)))
        except Exception:  # a wrong ledger may well stumble over itself
            found.append(name)
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_a_ledger_with_one_wrong_rule_is_convicted(mutant: Mutant, tmp_path: Path) -> None:
    with broken_copy(mutant, tmp_path) as package:
        assert convictions(package) != [], f"no scenario notices: {mutant}"


def test_an_unbroken_copy_is_acquitted(tmp_path: Path) -> None:
    harmless = Mutant("nothing", "ledger/ledger", "FAILED", "FAILED")
    with broken_copy(harmless, tmp_path) as package:
        assert convictions(package) == []
