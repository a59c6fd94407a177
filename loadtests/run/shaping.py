"""What a shape does to a run beside its users: it sets the rate of arrivals."""

from __future__ import annotations

from typing import Any


def set_rate(runner: Any, rate: float) -> None:
    """Arrivals a second, shared by all workers."""
    workers = max(1, getattr(runner, "worker_count", 1))
    runner.send_message("load_rate", {"rate": rate / workers})
