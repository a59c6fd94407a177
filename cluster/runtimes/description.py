"""What a server is given to run its replica by: a systemd unit, or a Compose file. Pure.

Both carry the fingerprint of what they were made of, and so does the process or container that runs
from them: equal ones need no restart.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jinja2

from cluster import REPOSITORY
from cluster.config import model
from cluster.config.inventory import Deployment
from cluster.runtimes import image, layout

TEMPLATES = REPOSITORY / "files" / "tigerbeetle"
#: Set for the unit's process, and read from its /proc/<pid>/environ.
SETTINGS_VARIABLE = "WALLET_SERVICE_SETTINGS"
SETTINGS_LABEL = "wallet-service.settings"


def unit(deployment: Deployment, index: int, program: str) -> str:
    """The systemd unit of replica ``index``, run from ``program`` (a path on the server)."""
    path = layout.data_path(deployment, index)
    command = " ".join([program, *start_arguments(deployment, path)])
    values = {"command": command.replace("%", "%%"), "journal": layout.JOURNAL}
    return _rendered("tigerbeetle.service.j2", deployment, index, values)


def compose(deployment: Deployment, index: int, image_id: str) -> str:
    """The Compose file of replica ``index``; ``image_id`` says which image its name stands for."""
    cluster = deployment.cluster
    name = layout.data_path(deployment, index).rpartition("/")[2]
    is_unconfined = cluster.seccomp == "unconfined"
    profile = "" if is_unconfined else (REPOSITORY / cluster.seccomp).read_text()
    values = {
        "command": start_arguments(deployment, f"/data/{name}"),
        "image": image.name(cluster),
        "image_id": image_id,
        "seccomp": "unconfined" if is_unconfined else layout.seccomp_file(),
        "profile": profile,
        "memlock": cluster.memlock,
    }
    return _rendered("replica.compose.yaml.j2", deployment, index, values)


def fingerprint(text: str) -> str:
    """The fingerprint in a unit or a Compose file."""
    for line in text.splitlines():
        for key in (f"Environment={SETTINGS_VARIABLE}=", f"{SETTINGS_LABEL}: "):
            if line.strip().startswith(key):
                return line.strip().removeprefix(key).strip('"')
    raise ValueError("a description without a fingerprint")


def start_arguments(deployment: Deployment, path: str) -> list[str]:
    """What the server is called with to serve ``path``."""
    cluster = deployment.cluster
    options = [f"--addresses={cluster.addresses}", f"--cache-grid={cluster.cache_grid}"]
    if cluster.statsd:
        options += ["--experimental", f"--statsd={cluster.statsd}"]
    return ["start", *options, path]


def _rendered(template: str, deployment: Deployment, index: int, values: dict[str, Any]) -> str:
    cluster = deployment.cluster
    replica = cluster.replicas[index]
    everything = {
        "label": deployment.label,
        "index": index,
        "cluster_id": cluster.id,
        "name": replica.name,
        "ip": str(replica.ip),
        "port": replica.port,
        "directory": layout.directory(deployment, index),
        "user": layout.USER,
        "uid": layout.UID,
        "memory_bytes": model.size_bytes(cluster.memory_limit),
        "settings_variable": SETTINGS_VARIABLE,
        **values,
    }
    source = (TEMPLATES / template).read_text()
    made_of = json.dumps([source, everything], sort_keys=True)
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    mark = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return environment.from_string(source).render(everything, fingerprint=mark)
