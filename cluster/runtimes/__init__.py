"""How replicas are run: all that differs between processes, Compose, systemd and Docker.

``of(deployment)`` is the one registry. A further runtime is a module with one class, and a line
here. A module is only loaded when it is asked for: `make status` needs one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.config.deployment import Deployment
    from cluster.runtimes.base import Runtime

#: Module, which is the runtime's name in an inventory → its class.
CLASSES = {"process": "Process", "compose": "Compose", "systemd": "Systemd", "docker": "Docker"}


def of(deployment: Deployment) -> Runtime:
    """How this deployment's replicas are run."""
    module = import_module(f"cluster.runtimes.{deployment.runtime}")
    runtime: Runtime = getattr(module, CLASSES[deployment.runtime])(deployment)
    return runtime
