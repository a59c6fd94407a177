"""What replicas are run by is equal, byte by byte, to what was recorded.

A changed unit, Compose file or fingerprint restarts every replica of every user at the next deploy.
Who means that writes the files again: ``RECORD=yes pytest tests/unit/test_renderings.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.config import Cluster
from cluster.config.deployment import Deployment, Runtime
from cluster.config.servers import Server, Settings
from cluster.runtimes.docker import Docker
from cluster.runtimes.process import Process
from cluster.runtimes.servers import fingerprint
from cluster.runtimes.systemd import Systemd

RECORDED = Path(__file__).parent / "recorded"
PROGRAM = "/usr/local/lib/tigerbeetle/0.17.9-0123456789ab/tigerbeetle"
IMAGE_ID = "sha256:" + "5" * 64


def cluster() -> Cluster:
    """All of it is fictional, and none of it comes from the repository's own env file."""
    return Cluster.model_validate(
        {
            "replicas": [
                {"index": i, "CONTAINER_NAME": f"tb-{i}", "IP": f"10.1.0.1{i}", "PORT": 3001 + i}
                for i in range(3)
            ],
            "CLUSTER_ID": 87_112_609_364_421_733_801,
            "AUTH_TOKEN": "a-token-of-its-own",
            "SUBNET": "10.1.0.0/24",
            "RELEASE": "0.17.9",
            "IMAGE": "registry.example.com/tigerbeetle",
            "IMAGE_DIGEST": "",
            "CUSTOM_IMAGE": "tigerbeetle-custom",
            "DOWNLOAD_URL": "https://example.com/releases",
            "SHA256_X86_64": "",
            "SHA256_AARCH64": "",
            "CACHE_GRID": "512MiB",
            "MEMORY_LIMIT": "3GiB",
            "MEMLOCK": -1,
            "SECCOMP": "files/tigerbeetle/seccomp.json",
            "BIND": "127.0.0.1",
            "DATA_DIR": "/srv/50%/state",
            "STATSD": "10.1.0.9:8125",
        }
    )


def on_servers(runtime: Runtime) -> Deployment:
    return Deployment(
        name="fictional",
        engine="tigerbeetle",
        runtime=runtime,
        state_dir=Path("/srv/50%/state/fictional"),
        cluster=cluster(),
        settings=Settings.model_validate(
            {"env_file": "env/fictional.env", "runtime": runtime, "data_dir": "/srv/tigerbeetle"}
        ),
        servers=tuple(Server.of({"replica": i, "ssh_hostname": f"db{i}"}) for i in range(3)),
    )


def unit() -> str:
    return Systemd(on_servers("systemd")).unit_file(1, PROGRAM)


def compose_file() -> str:
    return Docker(on_servers("docker")).compose_file(2, IMAGE_ID)


def supervisor() -> str:
    """With another path of the repository, which differs from one machine to the next."""
    made = Deployment(
        name="fictional",
        engine="tigerbeetle",
        runtime="process",
        state_dir=Path("/srv/50%/state/fictional"),
        cluster=cluster().on_loopback(),
    )
    text = Process(made).configuration(["/usr/local/bin/tigerbeetle"])
    return text.replace(str(REPOSITORY), "/srv/wallet-service")


def fingerprints() -> str:
    marks = []
    for index in range(3):
        made = Systemd(on_servers("systemd")).unit_file(index, PROGRAM)
        marks.append(f"unit {index} {fingerprint(made)}")
        made = Docker(on_servers("docker")).compose_file(index, IMAGE_ID)
        marks.append(f"compose {index} {fingerprint(made)}")
    return "\n".join([*marks, ""])


RENDERINGS: dict[str, Callable[[], str]] = {
    "replica-1.service": unit,
    "replica-2.compose.txt": compose_file,
    "supervisord.conf": supervisor,
    "fingerprints.txt": fingerprints,
}


@pytest.mark.parametrize("name", RENDERINGS)
def test_a_rendering_is_as_recorded(name: str) -> None:
    rendered, recorded = RENDERINGS[name](), RECORDED / name
    if os.environ.get("RECORD") == "yes":
        recorded.write_text(rendered)
    assert rendered == recorded.read_text()
