"""What the engine's machine is like, and what its containers get, wherever that machine is."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from cluster import config
from cluster.checks import engine as of_engine
from cluster.checks import observe
from cluster.config import PREFIX
from cluster.refusal import Refusal
from cluster.runtimes import container, docker_engine

CLUSTER = config.load(environ={})
IMAGE = "sha256:0d0a9f"
HERE = {"KernelVersion": platform.release(), "Name": platform.node()}
ELSEWHERE = {"KernelVersion": "6.6.87.2-linuxkit", "Name": "docker-desktop"}
REFUSED = "error setting rlimit type 8: operation not permitted: unknown."

Answer = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[list[str]]]:
    """An engine by its answers; returns the list of what it will have been asked."""

    def answering(answer: Answer) -> list[list[str]]:
        asked: list[list[str]] = []

        def run(command: list[str], *_: float, **__: str) -> subprocess.CompletedProcess[str]:
            asked.append(command)
            return subprocess.CompletedProcess(command, *answer(command))

        monkeypatch.setattr(docker_engine, "run", run)
        container._granted.cache_clear()
        return asked

    return answering


def refusing(security: str = "name=seccomp,profile=builtin", own: str = "8192") -> Answer:
    """An engine with our image, which may not raise limits above its own."""

    def answer(command: list[str]) -> tuple[int, str, str]:
        if command[1:3] == ["image", "inspect"]:
            return 0, IMAGE, ""
        if command[1] == "info":
            return 0, json.dumps({"ServerVersion": "29.0", "SecurityOptions": [security]}), ""
        if any(word.startswith("--ulimit=memlock=") for word in command):
            return 125, "", REFUSED
        return 0, f"{own}\n", ""

    return answer


def test_a_limit_that_the_engine_grants_is_left_as_it_is_configured(engine: Any) -> None:
    engine(lambda _: (0, IMAGE, ""))
    assert container.lowered(CLUSTER) == {}


def test_without_an_image_to_try_it_with_the_limit_is_the_configured_one(engine: Any) -> None:
    engine(lambda _: (1, "", "Error: No such image"))
    assert container.lowered(CLUSTER) == {}


def test_where_no_limit_may_be_raised_the_engine_s_own_is_taken_and_said_once(
    engine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(refusing())
    lowered = {f"{PREFIX}MEMLOCK": "8388608"}
    assert [container.lowered(CLUSTER) for _ in range(2)] == [lowered] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "8388608 instead of -1; the capability IPC_LOCK locks memory anyway" in line


@pytest.mark.parametrize("security", ["name=rootless", "name=userns"])
def test_where_the_capability_locks_nothing_a_limit_that_is_not_granted_is_refused(
    engine: Any, security: str
) -> None:
    engine(refusing(security))
    with pytest.raises(Refusal, match=r"MEMLOCK: .* own \(8192 KiB\).* Fix: .*LimitMEMLOCK"):
        container.lowered(CLUSTER)
    emulator = CLUSTER.model_copy(update={"image": "tigerbeetle-emulator"})
    assert container.lowered(emulator)  # which locks no memory anyway


#: Of what starts a server's containers: with CAP_SYS_RESOURCE, and without; and where it has that.
MAY, MAY_NOT = "000001ffffffffff 8388608", "000001fffeffffff 8388608"
INITIAL, NESTED = "0 0 4294967295", "0 100000 65536"


@pytest.mark.parametrize(
    ("limits", "wanted", "own"),
    [
        ("", -1, None),
        (f"{MAY} {INITIAL}", -1, None),
        (f"{MAY_NOT} {INITIAL}", -1, 8388608),
        (f"{MAY_NOT} {INITIAL}", 8388609, 8388608),
        (f"{MAY_NOT} {INITIAL}", 8388608, None),
        (f"{MAY} {NESTED}", -1, 8388608),
        (f"000001fffeffffff unlimited {INITIAL}", -1, None),
    ],
)
def test_a_server_s_engine_has_its_own_limit_only_where_it_may_not_grant_the_configured_one(
    limits: str, wanted: int, own: int | None
) -> None:
    assert container.own_limit(CLUSTER.model_copy(update={"memlock": wanted}), limits) == own


def test_an_engine_on_this_machine_is_looked_at_from_here(engine: Any, tmp_path: Any) -> None:
    asked = engine(lambda _: (1, "", ""))
    found = HERE | {"MemTotal": 2**50, "DockerRootDir": str(tmp_path)}
    seen = observe._of_engine(found, CLUSTER)
    assert seen["disk_bytes"] > 0
    assert seen["memory_bytes"] < 2**50
    assert not asked


@pytest.mark.parametrize("where", [ELSEWHERE, HERE], ids=["elsewhere", "unreadable"])
def test_what_cannot_be_seen_from_here_is_asked_of_the_engine(
    engine: Any, monkeypatch: pytest.MonkeyPatch, where: dict[str, str]
) -> None:
    def unreadable(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("shutil.disk_usage", unreadable)
    said = "io_uring_disabled 2\nmemory_kib 4096\ndisk_kib 1024\n"
    engine(lambda command: (0, said if command[1] == "run" else IMAGE, ""))
    found = where | {"MemTotal": 2**40, "DockerRootDir": "/var/lib/docker"}
    assert observe._of_engine(found, CLUSTER) == {
        "io_uring_disabled": "2",
        "memory_bytes": 4096 * 1024,
        "disk_bytes": 1024 * 1024,
    }


def test_without_an_image_to_ask_with_the_disk_is_not_known(engine: Any) -> None:
    engine(lambda _: (1, "", "Error: No such image"))
    found = ELSEWHERE | {"MemTotal": 2**33, "DockerRootDir": "/var/lib/docker"}
    seen = observe._of_engine(found, CLUSTER)
    assert (seen["memory_bytes"], seen["disk_bytes"]) == (2**33, None)


def test_an_address_of_another_machine_is_held_by_nobody_here() -> None:
    assert observe.listener("192.0.2.1", 3000) == ""


@pytest.mark.parametrize(
    "said",
    [
        {"ServerVersion": "4.3.1", "Plugins": {"Log": ["k8s-file", "none", "journald"]}},
        {"host": {"buildahVersion": "1.28.2"}, "version": {"Version": "4.3.1"}},
    ],
    ids=["socket", "command"],
)
def test_podman_is_refused_by_its_name(engine: Any, said: dict[str, Any]) -> None:
    engine(lambda _: (0, json.dumps(said), ""))
    with pytest.raises(Refusal, match=r"^docker: expected a Docker engine, found Podman, .* Fix: "):
        docker_engine.check_versions()


def test_a_network_that_is_removed_while_they_are_listed_hides_no_other(engine: Any) -> None:
    other = {"Name": "other", "IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}]}}

    def answer(command: list[str]) -> tuple[int, str, str]:
        if "ls" in command:
            return 0, "0123 4567\n", ""
        return 1, json.dumps([other]), "Error response from daemon: network 4567 not found"

    engine(answer)
    with pytest.raises(Refusal, match=r"found 172\.20\.0\.0/16 of other"):
        of_engine.check_subnet(CLUSTER)
    engine(lambda command: (0, "0123\n", "") if "ls" in command else (1, "[]", "not found"))
    of_engine.check_subnet(CLUSTER)


def test_networks_that_the_engine_does_not_tell_are_not_taken_for_none(engine: Any) -> None:
    said = "Cannot connect to the Docker daemon"
    engine(lambda command: (0, "0123\n", "") if "ls" in command else (1, "", said))
    with pytest.raises(Refusal, match=said):
        of_engine.check_subnet(CLUSTER)


_DENIED = "permission denied while trying to connect to the Docker daemon socket"


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        (json.dumps({"ServerErrors": [_DENIED]}), ""),
        (
            json.dumps({"ID": "", "ServerVersion": ""}),
            f"{_DENIED} at unix:///var/run/docker.sock\n",
        ),
        ("", f"{_DENIED}\n"),
    ],
    ids=["in its JSON", "beside its JSON", "without JSON"],
)
def test_a_socket_that_may_not_be_used_is_called_so(engine: Any, stdout: str, stderr: str) -> None:
    engine(lambda _: (1, stdout, stderr))
    with pytest.raises(Refusal, match="expected the right to use the engine's socket") as caught:
        docker_engine.info()
    assert _DENIED in str(caught.value)
    assert "usermod -aG docker" in str(caught.value)


def test_an_engine_that_does_not_answer_is_told_in_its_client_s_words(engine: Any) -> None:
    said = "Cannot connect to the Docker daemon at tcp://127.0.0.1:1"
    engine(lambda _: (1, json.dumps({"ServerVersion": ""}), f"{said}\n"))
    with pytest.raises(Refusal, match="expected an engine that answers") as caught:
        docker_engine.info()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("member", "is_refused"),
    [
        ({"Name": "app9", "IPv4Address": "172.20.0.10/24"}, True),
        ({"Name": "app9", "IPv4Address": "172.20.0.99/24"}, False),
        ({"Name": CLUSTER.replicas[0].name, "IPv4Address": "172.20.0.10/24"}, False),
        ({"Name": CLUSTER.replicas[1].name, "IPv4Address": "172.20.0.10/24"}, True),
    ],
)
def test_whoever_holds_a_replica_s_address_is_named(
    engine: Any, member: dict[str, str], is_refused: bool
) -> None:
    engine(lambda _: (0, json.dumps([{"Containers": {"0123": member}}]), ""))
    if not is_refused:
        of_engine.check_addresses(CLUSTER)
        return
    with pytest.raises(Refusal, match=f"found it held by {member['Name']}. Fix: docker network"):
        of_engine.check_addresses(CLUSTER)


@pytest.mark.parametrize(
    "answer", [(1, "[]\n", "Error: No such network: x"), (0, '[{"Containers": null}]', "")]
)
def test_where_there_is_no_network_nobody_holds_an_address(engine: Any, answer: Any) -> None:
    engine(lambda _: answer)
    of_engine.check_addresses(CLUSTER)
