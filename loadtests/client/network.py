"""How much of its network this machine uses: a load that fills the line measures the line."""

from __future__ import annotations

import time

import psutil

_BITS = 8e-6  # megabits in a byte


class Network:
    """The interfaces whose speed the system knows; a virtual machine's often has none."""

    def __init__(self) -> None:
        stats = psutil.net_if_stats().items()
        self._speeds = {
            name: known.speed for name, known in stats if known.isup and 0 < known.speed < 65535
        }
        self._at, self._before = time.monotonic(), self._bytes()

    def percent(self) -> float:
        """Of its speed, at the busiest interface in its busier direction, since the last call."""
        now, seen = time.monotonic(), self._bytes()
        seconds, before = now - self._at, self._before
        self._at, self._before = now, seen
        shares = (
            100 * _BITS * max(a - b for a, b in zip(seen[name], before[name], strict=True)) / speed
            for name, speed in self._speeds.items()
            if name in seen and name in before
        )
        return max(shares, default=0.0) / seconds if seconds > 0 else 0.0

    def _bytes(self) -> dict[str, tuple[int, int]]:
        if not self._speeds:
            return {}
        counted = psutil.net_io_counters(pernic=True)
        return {n: (c.bytes_sent, c.bytes_recv) for n, c in counted.items() if n in self._speeds}
