"""What a command of the engine shows while it works, how it ends, and what outgrows a container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.config.deployment import Deployment
from cluster.refusal import Failed
from cluster.runtimes import compose, container, docker_engine, image


def test_a_command_is_shown_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    compose.show(["sh", "-c", "echo one; echo two >&2"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_command_that_fails_is_told_with_its_last_line() -> None:
    with pytest.raises(Failed, match="expected it to succeed, found: it rained"):
        compose.show(["sh", "-c", "echo pulling; echo it rained; exit 1"])


def test_a_command_without_end_is_ended_and_told_with_what_it_last_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compose, "_SHOWN_TIMEOUT_S", 1.0)
    with pytest.raises(Failed, match="expected its end within 1 s, found: pulling"):
        compose.show(["sh", "-c", "echo pulling; exec sleep 60"])


def inspected(index: int, profile: str) -> dict[str, Any]:
    """A replica's container as the engine describes it, of a Compose project with hash ``h``."""
    return {
        "Name": f"/tigerbeetle-{index}",
        "Image": "sha256:1",
        "Config": {"Labels": {container.SERVICE_LABEL: "s", container.HASH_LABEL: "h"}},
        "HostConfig": {"SecurityOpt": [f"seccomp={profile}"]},
        "State": {"Status": "running", "Pid": 7, "ExitCode": 0},
        "NetworkSettings": {"Networks": {}},
    }


def test_a_seccomp_profile_with_other_content_is_another_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
    cluster = config.load(environ={}).model_copy(update={"seccomp": str(profile)})
    runtime = compose.Compose(
        Deployment(
            name="local",
            engine="tigerbeetle",
            runtime="compose",
            cluster=cluster,
            state_dir=tmp_path,
        )
    )
    made = json.dumps(json.loads(profile.read_text()), separators=(",", ":"))
    run = {i: container.parse(inspected(i, made)) for i in range(3)}
    monkeypatch.setattr(container, "of_replicas", lambda _: run)
    monkeypatch.setattr(container, "lowered", lambda _: {})
    monkeypatch.setattr(docker_engine, "stdout", lambda *_, **__: "s h\n")
    monkeypatch.setattr(image, "id_of", lambda _: "sha256:1")
    assert not runtime.stale()
    assert "--force-recreate" not in runtime.renew(1)
    profile.write_text('{"defaultAction": "SCMP_ACT_KILL"}')
    assert runtime.stale().stale == {0, 1, 2}
    assert "--force-recreate" in runtime.renew(1)
