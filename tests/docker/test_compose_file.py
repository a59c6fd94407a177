"""The Compose file, as Compose reads it, says what the Python model says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from cluster import REPOSITORY, config
from cluster.config import PREFIX, Cluster

pytestmark = pytest.mark.docker


def compose_config(**environ: str) -> subprocess.CompletedProcess[str]:
    """What users would type, with some variables set."""
    return subprocess.run(
        [
            "docker",
            "compose",
            "-f",
            "docker-compose.tb.yaml",
            "--env-file",
            "./env/tigerbittle.env",
            "config",
            "--format",
            "json",
        ],
        cwd=REPOSITORY,
        env={**_clean(), **environ},
        text=True,
        capture_output=True,
        timeout=600,
    )


def _clean() -> dict[str, str]:
    return {
        "PATH": subprocess.check_output(["sh", "-c", "echo $PATH"], text=True).strip(),
        "HOME": str(REPOSITORY),
    }


def model(**environ: str) -> tuple[dict[str, Any], Cluster]:
    """Both readings of the same settings."""
    done = compose_config(**environ)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    return json.loads(done.stdout), config.load(environ=environ)


SETTINGS: list[Mapping[str, str]] = [
    {},
    {f"{PREFIX}CLUSTER_ID": "340282366920938463463374607431768211455"},
    {f"{PREFIX}CACHE_GRID": "1GiB", f"{PREFIX}MEMORY_LIMIT": "4GiB"},
    {f"{PREFIX}STATSD": "127.0.0.1:8125"},
    {f"{PREFIX}MEMLOCK": "8388608", f"{PREFIX}SECCOMP": "unconfined"},
    {f"{PREFIX}BIND": "0.0.0.0"},
    {f"{PREFIX}IMAGE_DIGEST": "sha256:" + "0" * 64},
    {f"{PREFIX}1_CONTAINER_NAME": "ledger-b"},
    {
        f"{PREFIX}SUBNET": "10.1.2.0/24",
        **{f"{PREFIX}{i}_IP": f"10.1.2.{i + 5}" for i in range(3)},
        f"{PREFIX}ADDRESSES": "10.1.2.5:3000,10.1.2.6:3001,10.1.2.7:3002",
    },
]


@pytest.mark.parametrize("environ", SETTINGS, ids=lambda s: ",".join(s).replace(PREFIX, "") or "-")
def test_compose_and_python_read_the_same_cluster(environ: Mapping[str, str]) -> None:
    found, cluster = model(**environ)
    assert list(found["services"]) == [f"tigerbeetle-{r.index}" for r in cluster.replicas]
    (pool,) = found["networks"]["tigerbeetle-net"]["ipam"]["config"]
    assert pool["subnet"] == str(cluster.subnet)
    for replica, service in zip(cluster.replicas, found["services"].values(), strict=True):
        assert service["container_name"] == replica.name
        assert service["networks"]["tigerbeetle-net"]["ipv4_address"] == str(replica.ip)
        (port,) = service["ports"]
        assert port["host_ip"] == str(cluster.bind)
        assert (port["target"], port["published"]) == (replica.port, str(replica.port))
        assert service["image"] == f"{cluster.custom_image}:{cluster.release}"
        assert int(service["mem_limit"]) == config.size_bytes(cluster.memory_limit)
        assert service["ulimits"]["memlock"] == cluster.memlock
        assert service["security_opt"] == [f"seccomp={cluster.seccomp}"]
        assert service["healthcheck"]["test"][-2:] == [str(replica.ip), str(replica.port)]
        statsd = ["--experimental", f"--statsd={cluster.statsd}"] if cluster.statsd else []
        assert service["command"] == [
            "start",
            f"--addresses={cluster.addresses}",
            f"--cache-grid={cluster.cache_grid}",
            *statsd,
            f"/data/{cluster.id}_{replica.index}.tigerbeetle",
        ]


def test_the_base_image_is_named_with_its_digest_once_one_is_recorded() -> None:
    digest = "sha256:" + "1" * 64
    found, _ = model(**{f"{PREFIX}IMAGE_DIGEST": digest})
    base = found["services"]["tigerbeetle-0"]["build"]["args"]["BASE"]
    assert base == f"ghcr.io/tigerbeetle/tigerbeetle:{config.load(environ={}).release}@{digest}"


def test_the_token_is_nowhere_in_what_compose_makes() -> None:
    found, cluster = model()
    assert cluster.token not in json.dumps(found)


def _required() -> list[str]:
    text = (REPOSITORY / "docker-compose.tb.yaml").read_text()
    names = config.read(config.ENV_FILE, {})
    return sorted(name for name in names if f"${{{name}:?}}" in text)


@pytest.mark.parametrize("variable", _required())
def test_a_required_variable_that_is_empty_stops_compose(variable: str) -> None:
    done = compose_config(**{variable: ""})
    assert done.returncode != 0
    assert f'"{variable}"' in done.stderr or variable in done.stderr


def test_every_variable_that_containers_need_is_required() -> None:
    optional = {
        "AUTH_TOKEN",
        "IMAGE_DIGEST",
        "STATSD",
        "DATA_DIR",
        "FREEZE_LIMIT_S",
        "DOWNLOAD_URL",
        "SHA256_X86_64",
        "SHA256_AARCH64",
    }
    names = {name.removeprefix(PREFIX) for name in config.read(config.ENV_FILE, {})}
    assert names - optional == {name.removeprefix(PREFIX) for name in _required()}
