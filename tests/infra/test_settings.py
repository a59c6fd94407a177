"""Each replica runs with the settings of today: nobody has left a change half-way."""

from __future__ import annotations

from cluster.config import Replica
from tests.infra.world import World


def test_the_replica_runs_on_its_own_data_file_with_every_setting_as_it_is_now(
    world: World, replica: Replica
) -> None:
    """These arguments and no other: so not in development mode either, with small batches."""
    cluster = world.deployment.cluster
    statsd = f"--experimental --statsd={cluster.statsd} " if cluster.statsd else ""
    options = f"--addresses={cluster.addresses} --cache-grid={cluster.cache_grid} {statsd}"
    _, _, path = world.proc(replica, "cmdline").strip().partition(f" start {options}")
    assert path.startswith("/"), f"found {world.proc(replica, 'cmdline')}, not {options}"
    assert path.endswith(f"/{cluster.id}_{replica.index}.tigerbeetle")
