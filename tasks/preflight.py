"""Checks without impact: each raises, with what was expected and found, before any change."""

from __future__ import annotations

from pyinfra.api import deploy

from cluster.checks import rules
from tasks.support.here import deployment_here, guarded, is_bootstrap
from tasks.support.observed import is_first_host, observed


@deploy("Check what the replicas run on")
def check() -> None:
    """The machines, the server program, and what the data files allow; nothing is changed yet."""
    deployment = deployment_here()
    seen = observed(deployment)
    if is_first_host():  # once for all
        with guarded():
            rules.check_all(deployment, seen, is_asked_for=is_bootstrap())


@deploy("Check what the replicas are restored to")
def check_machines() -> None:
    """The same, but for the data files, which a restore brings."""
    deployment = deployment_here()
    seen = observed(deployment)
    if is_first_host():
        with guarded():
            rules.check_machines(deployment, seen)


#: As docs/servers.md calls it.
check_servers = check
