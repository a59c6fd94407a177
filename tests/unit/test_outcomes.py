"""What has become of backups is noted apart from them, is told, and fails nothing."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.health import textfile
from cluster.operate.backup import outcomes, repository, sets, take, turns, verify
from cluster.operate.backup.outcomes import Expected, Taken, Verified
from cluster.operate.backup.retention import Policy
from cluster.refusal import Failed, Refusal
from cluster.runtimes import ssh, tunnel
from tests.monitoring.samples import OF
from tests.unit.test_backup_set import OURS, made_set

AT = datetime(2026, 11, 29, 2, 0, 5, tzinfo=UTC)
METRIC = "wallet_service_backup_"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setattr(textfile, "writer", lambda: "here")


def values(text: str) -> dict[str, float]:
    """Metric without its prefix → value, as Prometheus' own parser reads them."""
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    assert all(s.labels == {"cluster": f"{0:032x}", "operator": "here"} for s in samples)
    return {sample.name.removeprefix(METRIC): sample.value for sample in samples}


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert outcomes.metrics(OURS) == ""
    assert outcomes.read(OURS, Taken) is None


def test_all_that_is_known_is_said() -> None:
    outcomes.note(OURS, Taken(name="a", at=AT))
    outcomes.note(OURS, Expected(since=AT - DAY, backup_s=108900, verify_s=756900))
    found = Verified(name="a", at=AT + DAY, passed=True, restore_s=41.5, behind_s=86400.25)
    outcomes.note_verified(OURS, found)
    assert values(outcomes.metrics(OURS)) == {
        "last_success_timestamp_seconds": AT.timestamp(),
        "timer_since_timestamp_seconds": (AT - DAY).timestamp(),
        "late_after_seconds": 108900,
        "verify_late_after_seconds": 756900,
        "verify_last_success_timestamp_seconds": (AT + DAY).timestamp(),
        "verify_restore_seconds": 41.5,
        "verify_newest_transfer_age_seconds": 86400.25,
    }


def test_a_failed_verification_does_not_undo_that_one_has_passed_before() -> None:
    outcomes.note_verified(OURS, Verified(name="a", at=AT, passed=True))
    outcomes.note_verified(OURS, Verified(name="b", at=AT + DAY, passed=False))
    outcomes.note_verified(OURS, Verified(name="c", at=AT + 2 * DAY, passed=False))
    assert values(outcomes.metrics(OURS)) == {
        "verify_last_success_timestamp_seconds": AT.timestamp(),
        "verify_last_failure_timestamp_seconds": (AT + 2 * DAY).timestamp(),
    }
    outcomes.note_verified(OURS, Verified(name="d", at=AT + 3 * DAY, passed=True))
    assert [*values(outcomes.metrics(OURS))] == ["verify_last_success_timestamp_seconds"]


def test_where_there_is_no_timer_for_proofs_none_is_ever_late() -> None:
    outcomes.note(OURS, Expected(since=AT, backup_s=1275, verify_s=None))
    assert "verify_late_after_seconds" not in values(outcomes.metrics(OURS))
    outcomes.expect_nothing(OURS)
    outcomes.expect_nothing(OURS)  # nor is a second time anything else
    assert outcomes.metrics(OURS) == ""


@pytest.mark.parametrize("other", [{"engine": "emulator"}, {"name": "local"}])
def test_another_cluster_s_outcomes_are_its_own(other: dict[str, str]) -> None:
    outcomes.note(OURS, Taken(name="a", at=AT))
    assert outcomes.read(OURS.model_copy(update=other), Taken) is None


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    outcomes.note(OURS, Taken(name="a", at=AT))
    (file,) = (tmp_path / "records").rglob("*.json")
    for text in ("", "{", '{"name": 1}'):
        file.write_text(text)
        assert outcomes.metrics(OURS) == ""


def test_what_cannot_be_noted_is_said_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records").write_text("a file where the directory belongs")
    outcomes.note(OURS, Taken(name="a", at=AT))
    assert capsys.readouterr().err.startswith("  not noted: ")


def test_the_file_is_written_where_a_deployment_is_monitored_and_nowhere_else(
    tmp_path: Path,
) -> None:
    ours = OURS.model_copy(update={"state_dir": tmp_path / "state"})
    outcomes.note(ours, Taken(name="a", at=AT))
    assert not (tmp_path / "state").exists()
    textfile.directory(ours).mkdir(parents=True)
    outcomes.note(ours, Taken(name="b", at=AT + DAY))
    (written,) = textfile.directory(ours).iterdir()
    assert written.name == "here.prom"
    assert written.stat().st_mode & 0o777 == 0o644  # for a reader that is somebody else
    assert values(written.read_text()) == {"last_success_timestamp_seconds": (AT + DAY).timestamp()}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a monitoring host, whose shell lines are run here."""
    directory = tmp_path / "there"
    directory.mkdir()
    monkeypatch.setattr(textfile, "DIRECTORY_THERE", str(directory))

    def run(host: Any, script: str) -> subprocess.CompletedProcess[str]:
        assert host == OF.monitoring
        return subprocess.run(["sh", "-c", script], text=True, capture_output=True, timeout=60)

    monkeypatch.setattr(ssh, "run", run)
    return directory


def test_a_monitoring_host_has_the_whole_file_and_nothing_besides(there: Path) -> None:
    outcomes.note(OF, Taken(name="a", at=AT))
    outcomes.note(OF, Taken(name="b", at=AT + DAY))
    (written,) = there.iterdir()
    assert written.name == "here.prom"
    assert written.stat().st_mode & 0o777 == 0o644
    assert f"{(AT + DAY).timestamp():.3f}" in written.read_text()
    assert f'cluster="{0xAB:032x}"' in written.read_text()


def test_a_monitoring_host_that_was_not_set_up_is_left_as_it_is(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there.rmdir()
    outcomes.note(OF, Taken(name="a", at=AT))
    assert not there.exists()
    assert capsys.readouterr().err == ""


def test_a_monitoring_host_that_cannot_be_told_is_said_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(host: Any, script: str) -> None:
        raise ssh.SshError("watch.example.com: no route")

    monkeypatch.setattr(ssh, "run", refuse)
    outcomes.note(OF, Taken(name="a", at=AT))
    said = capsys.readouterr().err
    assert said == "  not told to the monitoring: watch.example.com: no route\n"


def failing(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 1, "", "sh: 1: cannot create it: Disk full\n")


def test_a_monitoring_host_that_refuses_is_said_in_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ssh, "run", failing)
    outcomes.note(OF, Taken(name="a", at=AT))
    assert "watch.example.com: sh: 1: cannot create it: Disk full" in capsys.readouterr().err


def run(command: Any, *arguments: str) -> int:
    """A command's exit code, for our own inventory."""
    return int(command.main([*arguments], standalone_mode=False) or 0)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both commands are of OURS, and its replicas are left alone."""
    for module in (take, verify):
        monkeypatch.setattr(module.inventory, "read", lambda file: OURS)
    monkeypatch.setattr(tunnel, "reached", lambda deployment: deployment)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("wrong", "code"), [([], 0), (["a file is damaged"], 1), (Failed("it does not start"), 1)]
)
def test_a_verification_s_verdict_is_noted(
    wrong: Any, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_set(tmp_path / "backups" / "process" / "20261124T000000Z")

    def judge(*arguments: Any) -> Any:
        if isinstance(wrong, Failed):
            raise wrong
        return verify.Finding(wrong, restore_s=4.5)

    monkeypatch.setattr(verify, "verify", judge)
    assert run(verify.main) == code
    noted = outcomes.read(OURS, Verified)
    assert noted is not None
    assert (noted.name, noted.passed) == ("20261124T000000Z", code == 0)


@pytest.mark.usefixtures("ours")
def test_a_verification_that_is_refused_has_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="FROM: expected a backup"):
        run(verify.main)
    assert outcomes.metrics(OURS) == ""


@pytest.mark.usefixtures("ours")
def test_a_second_run_of_a_timer_is_one_line_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_set(tmp_path / "backups" / "process" / "20261124T000000Z")
    with take.locked(OURS), turns.verifying(OURS, "20261124T000000Z"):
        for command in (take.main, verify.main):
            assert run(command, "--scheduled") == 0
            said = capsys.readouterr()
            assert said.out.endswith(": another run is under way; this one leaves it to that one\n")
            assert (said.out.count("\n"), said.err) == (1, "")
            with pytest.raises(turns.Busy, match="found one under way") as refused:
                run(command)  # a person is refused
            assert refused.value.exit_code == 2
    assert outcomes.metrics(OURS) == ""


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Backups succeed, and are taken at once; where they are."""

    def made(inventory: str, deployment: Any, root: Path, asked: Any) -> sets.Manifest:
        return sets.read(made_set(root / "20261129T020000Z", taken_at=AT))

    monkeypatch.setattr(take, "_take", made)
    return tmp_path / "backups" / "process"


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*Z"))


def test_a_backup_is_noted_and_what_is_not_kept_is_let_go(taking: Path) -> None:
    for day in range(20, 29):
        made_set(taking / f"202611{day}T020000Z")
    take.take("any", OURS, Policy(daily=2, weekly=2))
    # Sunday, and the day before; the last of the week before was a Sunday, too.
    assert left(taking) == ["20261122T020000Z", "20261128T020000Z", "20261129T020000Z"]
    noted = outcomes.read(OURS, Taken)
    assert noted == Taken(name="20261129T020000Z", at=AT)


def test_a_failing_backup_lets_go_of_nothing_and_is_no_success(
    taking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(20, 29):
        made_set(taking / f"202611{day}T020000Z")
    before = left(taking)

    def fail(*arguments: Any) -> None:
        raise Failed("a server has failed")

    monkeypatch.setattr(take, "_take", fail)
    with pytest.raises(Failed, match="a server has failed"):
        take.take("any", OURS, Policy(last=1))
    assert left(taking) == before
    assert outcomes.read(OURS, Taken) is None


def test_nothing_is_let_go_while_one_is_verified_and_never_what_was_just_taken(
    taking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clock that was put back makes the newest look old."""
    for name in ("20261128T020000Z", "20991231T000000Z"):
        made_set(taking / name)
    with turns.verifying(OURS, "20261128T020000Z"):
        take.take("any", OURS, Policy(last=1))
    assert len(left(taking)) == 3
    assert "none is let go, since 20261128T020000Z is being verified" in capsys.readouterr().out
    shutil.rmtree(taking / "20261129T020000Z")
    take.take("any", OURS, Policy(last=1))
    assert left(taking) == ["20261129T020000Z", "20991231T000000Z"]


@pytest.mark.parametrize("verified", ["", "20261128T020000Z"])
def test_a_repository_lets_go_of_the_same_and_is_left_alone_while_one_is_verified(
    taking: Path, monkeypatch: pytest.MonkeyPatch, verified: str
) -> None:
    names = ["20261127T020000Z", "20261128T020000Z", "20261129T020000Z"]
    dropped: list[list[str]] = []
    monkeypatch.setattr(repository, "names", lambda deployment: names)
    monkeypatch.setattr(repository, "drop", lambda deployment, old: dropped.append(old))
    monkeypatch.setattr(turns, "verified_now", lambda deployment: verified)
    monkeypatch.setattr(sets.Manifest, "is_stored", True)
    take.take("any", OURS, Policy(daily=2))
    assert dropped == ([] if verified else [names[:1]])


def test_a_backup_is_noted_though_what_is_old_cannot_be_let_go(
    taking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_set(taking / "20261128T020000Z")

    def fail(path: Path) -> None:
        raise Refusal("the disk is read-only")

    monkeypatch.setattr(sets, "remove", fail)
    with pytest.raises(Failed, match="read-only; backup 20261129T020000Z is taken"):
        take.take("any", OURS, Policy(last=1))
    assert outcomes.read(OURS, Taken) == Taken(name="20261129T020000Z", at=AT)


def test_whoever_cannot_tell_that_one_is_verified_lets_go_as_ever(
    taking: Path, tmp_path: Path
) -> None:
    made_set(taking / "20261128T020000Z")
    (tmp_path / "records").write_text("a file where the directory belongs")
    take.take("any", OURS, Policy(last=1))
    assert left(taking) == ["20261129T020000Z"]


@pytest.mark.usefixtures("ours", "taking")
@pytest.mark.parametrize("keep", ["0", "daily", "weekly=0", "nightly=3"])
def test_a_bad_policy_is_refused_before_anything_is_touched(keep: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="KEEP: expected"):
        run(take.main, f"--keep={keep}")
    assert [*tmp_path.iterdir()] == []
