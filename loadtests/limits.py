"""What has limited a load: who sent it, the way to the cluster, or the cluster itself. Pure."""

from __future__ import annotations

from typing import Literal

from loadtests.run.conductor import GENERATOR_CPU_LIMIT
from loadtests.run.result import Figures

Limit = Literal["generator", "network", "cluster"]

#: Above this share of an interface's speed, packets wait for one another.
NETWORK_LIMIT = 70.0
#: A cause that takes this share of the time is the cause.
MOST = 0.5

WORDS: dict[Limit, str] = {
    "generator": "the generator was the limit: add --processes, load hosts, or cores",
    "network": "the network was the limit, not the cluster: load from nearer by",
    "cluster": "the cluster was the limit",
}


def limit(found: Figures, rtt_ms: float | None = None) -> Limit:
    """Who was the limit in a window that missed its bound.

    ``rtt_ms`` is the time that a connection takes from a load host to a replica, where it is known.
    """
    latency, late = found.latency.p99_ms, found.hub_lag.p99_ms
    is_late = latency is not None and late is not None and late > MOST * latency
    if found.generator_cpu_percent > GENERATOR_CPU_LIMIT or is_late:
        return "generator"
    request = found.request_latency.p50_ms
    is_far = rtt_ms is not None and request is not None and rtt_ms > MOST * request
    return "network" if found.network_percent > NETWORK_LIMIT or is_far else "cluster"
