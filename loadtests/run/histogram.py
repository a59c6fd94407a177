"""Latency counted in logarithmic buckets: 1 µs to 70 minutes, each about 1.1 % wide.

locust's own histogram has whole milliseconds below 100 ms; a ledger answers faster than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

BUCKETS_PER_DOUBLING = 64
BUCKETS = 2048
FLOOR_S = 1e-6


def bucket_of(seconds: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The bucket of each duration in seconds; anything outside falls into the end buckets."""
    ratio = np.maximum(np.asarray(seconds, np.float64), FLOOR_S) / FLOOR_S
    index = (np.log2(ratio) * BUCKETS_PER_DOUBLING).astype(np.int64)
    return np.minimum(index, BUCKETS - 1)


def seconds_of(bucket: int) -> float:
    """The middle of a bucket, in seconds."""
    return float(FLOOR_S * 2 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING))


class Histogram:
    """A count for each bucket. Histograms of workers and seconds add up without loss."""

    def __init__(self, *parts: Mapping[int, int]) -> None:
        self.counts = np.zeros(BUCKETS, np.int64)
        for buckets in parts:
            self.merge(buckets)

    def add(self, seconds: Sequence[float] | npt.NDArray[np.float64]) -> None:
        """Count durations."""
        if len(seconds):
            self.counts += np.bincount(bucket_of(seconds), minlength=BUCKETS)

    def merge(self, buckets: Mapping[int, int]) -> None:
        """Add ``{bucket: count}``."""
        for bucket, count in buckets.items():
            self.counts[int(bucket)] += count

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return int(self.counts.sum())

    @property
    def buckets(self) -> dict[int, int]:
        """The buckets that hold something."""
        return {int(i): int(self.counts[i]) for i in np.flatnonzero(self.counts)}

    def percentile_ms(self, percent: float) -> float | None:
        """The duration in milliseconds that ``percent`` of all do not exceed; None if empty."""
        total = self.total
        if not total:
            return None
        rank = max(1, int(np.ceil(total * percent / 100)))
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return seconds_of(bucket) * 1000
