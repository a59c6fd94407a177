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

import emulator
from tests.emulator import scenarios
from tests.emulator.world import LedgerBackend, World


class Mutant(NamedTuple):
    """A rule, the module it is in, its text and the wrong one in its place."""

    rule: str
    module: str
    right: str
    wrong: str


MUTANTS = [
    Mutant("id max is no account id", "accounts", "account_id == ID_MAX", "False"),
    Mutant("limits exclude each other", "accounts", "== _BOTH_LIMITS", "== 99"),
    Mutant("flags are compared as they are", "accounts", "!= existing.flags", "!= event[15]"),
    Mutant(
        "imported accounts avoid transfers' times",
        "accounts",
        " or ledger.transfer_at(given)",
        "",
    ),
    Mutant("the flag of a batch is its first's", "creates", "if event[-2] & rules", "if 0 & rules"),
    Mutant("an imported time precedes the batch", "creates", "given >= last", "False"),
    Mutant("a linked last event leaves a chain open", "creates", "index == count - 1", "False"),
    Mutant("a broken chain takes everything back", "creates", "ledger.discard_scope()", "pass"),
    Mutant("members before the breaker fail too", "creates", "[_FAILED]) *", "[status]) *"),
    Mutant("exists carries the stored time", "creates", "if status == rules.exists:", "if False:"),
    Mutant("a transient failure uses the id up", "creates", "in rules.transient", "in ()"),
    Mutant("a closed account is not plain", "records", "| ACCOUNT_CLOSED\n)", ")"),
    Mutant("debits stay within credits", "transfers", "debits > debit.credits_posted", "False"),
    Mutant("credits stay within debits", "transfers", "credits > credit.debits_posted", "False"),
    Mutant(
        "the limit counts what is pending", "transfers", "debits += debit.debits_pending", "pass"
    ),
    Mutant("2^128 overflows a sum", "transfers", "if debits > U128_MAX:", "if debits > 1 << 128:"),
    Mutant("2^128 overflows a plain sum", "plain", "> U127_MAX", "> 1 << 128"),
    Mutant(
        "balancing leaves what is pending",
        "transfers",
        " - debit.debits_pending\n",
        "\n",
    ),
    Mutant("a balancing transfer can find nothing", "transfers", "max(0, available)", "available"),
    Mutant("closing is for pending transfers", "transfers", "flags & _CLOSING", "False"),
    Mutant("an imported transfer postdates", "transfers", "<= credit.timestamp", "< 0"),
    Mutant("an imported hold cannot time out", "transfers", "if event[9] else 0", "if 0 else 0"),
    Mutant("2^128-1 posts everything", "pending", "U128_MAX if", "5 if"),
    Mutant("0 voids everything", "pending", "TRANSFER_POST else 0", "TRANSFER_POST else 5"),
    Mutant("a void is for the whole amount", "pending", "amount < held_amount", "False"),
    Mutant("no more is posted than is held", "pending", "amount > held_amount", "False"),
    Mutant("a post is refused by a closed account", "pending", "& ACCOUNT_CLOSED", "& 0"),
    Mutant("a resolution is final", "pending", "ledger.pending[row] = POSTED", "pass"),
    Mutant("user data is inherited", "pending", "event[8] or held[8]", "event[8]"),
    Mutant("a passed timeout is final", "pending", "POSTED: Status", "EXPIRED + 1: Status"),
    Mutant(
        "the higher amount of a balancing transfer is the same", "duplicates", ">= moved", "< 0"
    ),
    Mutant("flags come before other differences", "duplicates", "event[12] != stored[12]", "False"),
    Mutant("voiding reopens accounts", "ledger", "flags & TRANSFER_CLOSING_DEBIT", "False"),
    Mutant(
        "undone resolutions are pending", "ledger", "[self.transfers[event[5]]] = P", "[-9] = P"
    ),
    Mutant("undone accounts are gone", "ledger", "del self.accounts[account.id]", "pass"),
    Mutant("undone amounts are back", "ledger", "account.restore(balances)", "pass"),
    Mutant("undone ids are free", "ledger", "del self.transfers[event[0]]", "pass"),
    Mutant(
        "an expiry releases the amount",
        "ledger",
        "self.release_pending(event, debit, credit)\n        self.pending[row] = EXPIRED",
        "pass",
    ),
    Mutant("imported times rise", "ledger", "timestamp <= newest", "False"),
    Mutant("a range of time includes its end", "queries", "bisect_right", "bisect_left"),
    Mutant("reversed means descending", "queries", "if descending else", "if False else"),
    Mutant("only accounts with history have one", "queries", "& ACCOUNT_HISTORY", "& 63 or True"),
    Mutant("an unknown filter flag finds nothing", "queries", " or flags > 7", ""),
    Mutant("a history shows the releases of holds", "history", "opening=True", "opening=False"),
]


@contextmanager
def broken_copy(mutant: Mutant, directory: Path) -> Iterator[ModuleType]:
    """The emulator package with the mutant's rule replaced, under a name of its own."""
    name = "mutant_" + "".join(filter(str.isalnum, mutant.rule))
    copy = directory / name
    shutil.copytree(Path(emulator.__file__).parent, copy)
    path = copy / f"{mutant.module}.py"
    text = path.read_text()
    assert mutant.right in text, f"the rule is no longer written like this in {mutant.module}"
    path.write_text(text.replace(mutant.right, mutant.wrong))
    sys.path.insert(0, str(directory))
    try:
        importlib.import_module(f"{name}.ledger")
        importlib.import_module(f"{name}.operations")
        yield sys.modules[name]
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
    harmless = Mutant("nothing", "ledger", "FAILED", "FAILED")
    with broken_copy(harmless, tmp_path) as package:
        assert convictions(package) == []
