"""A worker's seconds, handed to locust's own statistics in bulk: its console, web UI and --csv."""

from __future__ import annotations

import locust.stats
from locust.stats import StatsEntry

from typing import Any

from loadtests.run.histogram import seconds_of
from loadtests.run.meter import ActionSecond, Second

METHOD = "TB"


def finer_buckets(milliseconds: float) -> float:
    """Two significant digits at any size: locust's default is whole milliseconds below 100."""
    return float(f"{milliseconds:.2g}")


def install() -> None:
    """Let locust keep latencies below a millisecond (a documented hook of locust.stats)."""
    locust.stats.bucket_response_time = finer_buckets


def hand_over(stats: Any, second: Second) -> None:
    """Add a second to locust's RequestStats. Business rejections are answers, not failures."""
    for name, action in second["actions"].items():
        entry = _entry(stats, name, action, second["at"])
        stats.entries[(name, METHOD)].extend(entry)
        stats.total.extend(entry)
        wrong = action["unknown"] + action["error"]
        if wrong:
            for reason, count in action["reasons"].items():
                _count_errors(stats, name, reason, min(count, wrong))


def _entry(stats: Any, name: str, action: ActionSecond, at: float) -> Any:
    entry = StatsEntry(stats, name, METHOD)
    count = action["ok"] + action["rejected"] + action["unknown"] + action["error"]
    wrong = action["unknown"] + action["error"]
    entry.start_time = entry.last_request_timestamp = at
    entry.num_requests, entry.num_failures = count, wrong
    entry.num_reqs_per_sec[int(at)] = count
    if wrong:
        entry.num_fail_per_sec[int(at)] = wrong
    for bucket, number in action["buckets"].items():
        milliseconds = seconds_of(bucket) * 1000
        entry.response_times[finer_buckets(milliseconds)] += number
        entry.total_response_time += milliseconds * number
        entry.max_response_time = max(entry.max_response_time, milliseconds)
        entry.min_response_time = min(entry.min_response_time or milliseconds, milliseconds)
    return entry


def _count_errors(stats: Any, name: str, reason: str, count: int) -> None:
    key = locust.stats.StatsError.create_key(METHOD, name, reason)
    error = stats.errors.get(key)
    if error is None:
        error = stats.errors[key] = locust.stats.StatsError(METHOD, name, reason)
    error.occurred()
    error.occurrences += count - 1
