"""Who is measured as a replica: behind a published port, the server and not Docker's proxy."""

from __future__ import annotations

import pytest

from loadtests.run.servers import server_behind

START = ["start", "--addresses=172.20.0.10:3000,172.20.0.11:3001", "--cache-grid=512MiB"]
OTHERS = "--addresses=10.0.0.1:3000,10.0.0.2:3001"


def proxy(ip: str, port: int) -> list[str]:
    return [
        "/usr/bin/docker-proxy",
        "-proto",
        "tcp",
        "-host-ip",
        "127.0.0.1",
        "-host-port",
        str(port),
        "-container-ip",
        ip,
        "-container-port",
        str(port),
    ]


PROCESSES: list[tuple[int, list[str]]] = [
    (1, ["/sbin/init"]),
    (2, proxy("172.20.0.10", 3000)),
    (3, []),
    (10, ["tini", "--", "/tigerbeetle", *START, "/data/0_0.tigerbeetle"]),
    (11, ["/tigerbeetle", *START, "/data/0_0.tigerbeetle"]),
    (20, ["/usr/bin/tini", "--", "/tigerbeetle", *START, "/data/0_1.tigerbeetle"]),
    (21, ["python3", "-m", "tigerbeetle_emulator", *START, "/data/0_1.tigerbeetle"]),
    (31, ["/tigerbeetle", "start", OTHERS, "/data/0_0.tigerbeetle"]),
]


@pytest.mark.parametrize(
    ("ip", "port", "pid"),
    [("172.20.0.10", 3000, 11), ("172.20.0.11", 3001, 21), ("10.0.0.1", 3000, 31)],
)
def test_the_server_behind_a_proxy_is_the_one_with_its_address(
    ip: str, port: int, pid: int
) -> None:
    assert server_behind(proxy(ip, port), PROCESSES) == pid


@pytest.mark.parametrize(("ip", "port"), [("172.20.0.12", 3002), ("10.0.0.2", 3001)])
def test_a_server_that_cannot_be_seen_is_not_guessed(ip: str, port: int) -> None:
    assert server_behind(proxy(ip, port), PROCESSES) is None
