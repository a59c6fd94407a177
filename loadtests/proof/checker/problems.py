"""What a check found wrong, and its verdict."""

from __future__ import annotations

from loadtests.proof.named import NAMED_MAX
from loadtests.run.result import Check


class Problems:
    """Counts what is wrong and names the first few."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._named: list[str] = []
        self.count = 0

    def add(self, problem: str) -> None:
        """Note one."""
        self.count += 1
        if len(self._named) < NAMED_MAX:
            self._named.append(problem)

    def check(self, good: str) -> Check:
        """The verdict: failed with what was named, else passed with ``good``."""
        if not self.count:
            return Check(name=self.name, verdict="passed", detail=good)
        more = f"; and {self.count - len(self._named):,} more" * (self.count > len(self._named))
        return Check(name=self.name, verdict="failed", detail="; ".join(self._named) + more)
