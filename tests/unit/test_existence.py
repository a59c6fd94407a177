"""A cluster whose data is gone is known to have existed, and is not made anew without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from cluster import config
from cluster.checks import existence, facts
from cluster.checks.facts import Facts
from cluster.config import servers
from cluster.config.deployment import ON_SERVERS, Deployment, Runtime
from cluster.operate import compose_tb, phase, recover
from cluster.operate.backup import take
from cluster.refusal import Refusal
from cluster.runtimes import docker_engine, image, of, volumes

NOTHING = {index: Facts() for index in range(3)}
EARLIER, LATER = "2020-01-01T06:45:00Z", "2999-01-01T06:45:00Z"


@pytest.fixture(params=get_args(Runtime))
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    """A cluster of each runtime, none of whose data files is there."""
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("BOOTSTRAP", raising=False)
    monkeypatch.setattr(image, "id_of", lambda _: None)
    monkeypatch.setattr(volumes, "existing", lambda _: [])
    monkeypatch.setattr("cluster.runtimes.container.of_replicas", lambda _: {})
    return made(request.param, tmp_path)


def made(runtime: Any, directory: Path, **changes: Any) -> Deployment:
    described = {"env_file": "x", "runtime": runtime}
    is_on_servers = runtime in ON_SERVERS
    return Deployment(
        name="mine",
        engine="tigerbeetle",
        runtime=runtime,
        cluster=config.load(environ={}),
        state_dir=directory / "state" / "mine",
        settings=servers.Settings.model_validate(described) if is_on_servers else None,
    ).model_copy(update=changes)


def back_up(deployment: Deployment, directory: Path, taken_at: str, **changes: str) -> Path:
    made = directory / "backups" / deployment.name / "20200101T064500Z"
    made.mkdir(parents=True)
    said = {"cluster_id": "0", "engine": "tigerbeetle", "taken_at": taken_at} | changes
    (made / "manifest.json").write_text(json.dumps(said))
    return made


def load(loaded: Deployment, directory: Path, **changes: str) -> Path:
    made = directory / "runs" / "one"
    made.mkdir(parents=True)
    target = {
        "deployment": loaded.name,
        "engine": loaded.engine,
        "cluster_id": "0",
        "addresses": config.addresses(loaded.listed),
    }
    (made / "run.json").write_text(json.dumps({"started": 1e9, "target": target | changes}))
    return made


def refusal(deployment: Deployment) -> str:
    with pytest.raises(Refusal) as refused:
        facts.plan(deployment, NOTHING)
    # A word allows it; in Docker it is only decided once there is an image to look with.
    assert facts.plan(deployment, NOTHING, is_asked_for=True) in ("format", None)
    return str(refused.value)


def is_new(deployment: Deployment) -> bool:
    """Nothing speaks against a new cluster here; on servers it takes a word in any case."""
    if deployment.settings is not None:
        return "though it has existed" not in refusal(deployment)
    return facts.plan(deployment, NOTHING) in ("format", None)


def test_what_was_noted_is_not_made_anew_without_a_word(deployment: Deployment) -> None:
    assert is_new(deployment)
    existence.note(deployment)
    said = refusal(deployment)
    assert "found none" in said
    assert of(deployment).place in said
    assert "noted in" in said
    assert f"`make restore INVENTORY={deployment.file} FROM=`" in said
    assert said.endswith("BOOTSTRAP=yes`")
    assert "recover" not in said


def test_on_servers_without_a_trace_the_way_back_is_named_before_a_new_beginning(
    deployment: Deployment,
) -> None:
    """Whoever asks may not be who made it, and has its backups elsewhere."""
    if deployment.settings is not None:
        fix = refusal(deployment).partition("Fix: ")[2]
        assert (
            0 < fix.find(f"make restore INVENTORY={deployment.file} FROM=") < fix.find("BOOTSTRAP")
        )


def test_a_backup_says_it_and_is_named_as_the_way_back(
    deployment: Deployment, tmp_path: Path
) -> None:
    taken = back_up(deployment, tmp_path, EARLIER)
    said = refusal(deployment)
    assert f"backup {taken} of 2020-01-01 06:45 UTC" in said
    assert f"`make restore INVENTORY={deployment.file} FROM={taken}`" in said


def test_a_run_says_it(deployment: Deployment, tmp_path: Path) -> None:
    assert f"run {load(deployment, tmp_path)} of 2001-09-09" in refusal(deployment)


@pytest.mark.parametrize(
    "changes", [{"cluster_id": "7"}, {"engine": "emulator"}, {"taken_at": "someday"}]
)
def test_another_cluster_s_backup_says_nothing(
    deployment: Deployment, tmp_path: Path, changes: dict[str, str]
) -> None:
    back_up(deployment, tmp_path, **{"taken_at": EARLIER} | changes)
    assert is_new(deployment)


@pytest.mark.parametrize(
    "changes",
    [{"deployment": "other"}, {"engine": "emulator"}, {"cluster_id": "7"}, {"addresses": "h:1"}],
)
def test_another_cluster_s_run_says_nothing(
    deployment: Deployment, tmp_path: Path, changes: dict[str, str]
) -> None:
    load(deployment, tmp_path, **changes)
    assert is_new(deployment)


def test_another_place_is_another_cluster_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of sandboxes: each has its own, and a run that is left of one is not the next one's."""
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    first = made("process", tmp_path)
    existence.note(first)
    load(first, tmp_path)
    assert is_new(made("process", tmp_path, state_dir=tmp_path / "elsewhere" / "mine"))
    assert existence.past(made("process", tmp_path)).traces


def test_what_was_ended_on_purpose_may_begin_anew(deployment: Deployment, tmp_path: Path) -> None:
    existence.note(deployment)
    taken = back_up(deployment, tmp_path, EARLIER)
    load(deployment, tmp_path)
    existence.end(deployment)
    assert is_new(deployment)
    assert not existence.is_noted(deployment)
    (taken / "manifest.json").write_text(
        json.dumps({"cluster_id": "0", "engine": "tigerbeetle", "taken_at": LATER})
    )
    assert f"FROM={taken}`" in refusal(deployment)  # of what has come since
    existence.note(deployment)
    assert "noted in" in refusal(deployment)


def test_a_record_that_cannot_be_read_is_one(deployment: Deployment, tmp_path: Path) -> None:
    existence.note(deployment)
    (record,) = (tmp_path / "records").glob("*/*")
    record.write_text("")
    assert "noted in" in refusal(deployment)


def test_a_record_that_cannot_be_written_stops_nothing(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records").touch()
    existence.note(deployment)
    assert "not written" in capsys.readouterr().err


NEW = {
    "process": "make up INVENTORY=inventories/mine.py",
    "compose": "make compose-tb-format",
    "systemd": "make up INVENTORY=inventories/mine.py BOOTSTRAP=yes",
    "docker": "make up INVENTORY=inventories/mine.py BOOTSTRAP=yes",
}


@pytest.mark.parametrize("what", ["backup", "recover"])
def test_where_nothing_is_deployed_it_is_said_in_a_line_and_nothing_is_started(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(phase, "run", lambda *_, **__: pytest.fail("something was started"))
    monkeypatch.setattr(take, "is_running", lambda _: False)
    monkeypatch.setattr("cluster.health.health.of_replicas", lambda _: stopped(deployment))
    for module in (take, recover):
        monkeypatch.setattr(module, "observe", lambda _: NOTHING)

    def refused() -> str:
        act: Any = {"backup": take.take, "recover": recover.recover}[what]
        with pytest.raises(Refusal) as found:
            act("inventories/mine.py", deployment, 1)
        assert found.value.exit_code == 2
        return str(found.value)

    said = refused()
    assert f"{what}: expected the data files of" in said
    assert f"found none of any replica {of(deployment).place}." in said
    assert said.endswith(NEW[deployment.runtime])
    existence.note(deployment)
    assert f"make restore INVENTORY={deployment.file} FROM=" in refused()


def stopped(deployment: Deployment) -> list[Any]:
    from tests.unit.test_recover import replica

    return [replica(index, "DOWN") for index in range(3)]


def test_an_init_that_was_not_confirmed_removes_nothing_of_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.delenv("BOOTSTRAP", raising=False)
    monkeypatch.setattr(docker_engine, "check_versions", dict)
    monkeypatch.setattr(volumes, "existing", lambda _: [])
    monkeypatch.setattr(compose_tb, "build", lambda _: pytest.fail("it went on"))
    cluster = config.load(environ={})
    existence.note(compose_tb._deployment(cluster))
    for word in ("", "CONFIRM", "BOOTSTRAP"):
        with monkeypatch.context() as typed:
            if not word:
                with pytest.raises(Refusal, match="make compose-tb-format BOOTSTRAP=yes"):
                    compose_tb.init(cluster)
                continue
            typed.setenv(word, "yes")
            with pytest.raises(pytest.fail.Exception, match="it went on"):
                compose_tb.init(cluster)
