"""Which upgrades are allowed, from what the program itself says; and what is written down after."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import ENV_FILE, PREFIX
from cluster.config.deployment import Deployment
from cluster.operate import upgrade
from cluster.operate.backup.sets import Manifest, PackedFile
from cluster.refusal import Refusal
from cluster.tigerbeetle.log import parse
from cluster.tigerbeetle.upgrade_path import (
    BAD_RELEASES,
    Offer,
    check_client,
    check_offer,
    check_running,
    check_step,
    parse_offer,
    remaining,
    triple,
)
from tests.clusters import Sandbox

#: Lines of `tigerbeetle version --verbose` of a release that bundles its predecessor (0.17.9).
VERBOSE = """\
TigerBeetle version 0.17.9+52ad553

process.release=0.17.9
process.release_client_min=0.16.4
process.port=3001

multiversioning.exe_path=/usr/local/bin/tigerbeetle
multiversioning.releases_bundled={ 0.17.8, 0.17.9 }
multiversioning.header.past.releases={ 0.17.8 }
"""
NAMED = "INVENTORY=eu.py"
NEW = Offer("0.17.9", ("0.17.8", "0.17.9"), "0.16.4")


def test_an_offer_is_what_the_program_says() -> None:
    assert parse_offer(VERBOSE) == NEW


def test_a_program_built_alone_offers_itself_only() -> None:
    alone = VERBOSE.partition("multiversioning")[0] + "multiversioning not enabled: error.X"
    assert parse_offer(alone) == Offer("0.17.9", ("0.17.9",), "0.16.4")


@pytest.mark.parametrize("output", ["", "TigerBeetle EMULATOR version 0.17.9", "Segmentation"])
def test_what_is_no_server_offers_nothing(output: str) -> None:
    with pytest.raises(Refusal, match=r"expected what `version --verbose` prints, found"):
        parse_offer(output)


def test_a_newer_release_is_a_step() -> None:
    check_step("0.17.9", "0.17.10", NAMED)
    check_step("0.17.4", "0.17.8", NAMED)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("0.17.9", "found the one that is configured"),
        ("0.17.8", "no release reads a newer one's data files"),
        ("0.9.10", "no release reads a newer one's data files"),
        ("latest", "a release such as 0.17.9, found 'latest'"),
        ("", "found ''"),
        ("0.17", "found '0.17'"),
        ("0.17.10\n", "expected a release"),
    ],
)
def test_what_is_no_step_is_refused(target: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        check_step("0.17.9", target, NAMED)


@pytest.mark.parametrize("bad", sorted(BAD_RELEASES))
def test_a_bad_release_is_refused_with_what_to_take_instead(bad: str) -> None:
    with pytest.raises(Refusal, match=r"found .*, which may .*: take \d"):
        check_step("0.16.4", bad, NAMED)


def test_the_new_server_must_be_what_was_asked_for() -> None:
    with pytest.raises(Refusal, match=r"new server to be 0\.17\.10, found 0\.17\.9"):
        check_offer(NEW, "0.17.8", "0.17.10")


def test_a_release_it_does_not_go_back_to_needs_a_step_in_between() -> None:
    check_offer(NEW, "0.17.8", "0.17.9")
    with pytest.raises(Refusal, match=r"goes back to 0\.17\.8 only.*in between"):
        check_offer(NEW, "0.17.4", "0.17.9")


def test_a_client_that_would_no_longer_be_served_is_refused() -> None:
    check_client("0.16.4", NEW)
    with pytest.raises(Refusal, match=r"expected 0\.16\.4 or newer.*found 0\.16\.3"):
        check_client("0.16.3", NEW)


def test_replicas_run_what_is_configured_or_already_the_target() -> None:
    check_running({0: "0.17.8", 1: "0.17.9", 2: "0.17.8"}, "0.17.8", "0.17.9", NAMED)
    with pytest.raises(Refusal, match=r"found replica 1: 0\.17\.4, replica 2: none"):
        check_running({0: "0.17.8", 1: "0.17.4", 2: ""}, "0.17.8", "0.17.9", NAMED)


def test_what_remains_is_counted_by_the_replicas_own_word() -> None:
    assert remaining(["0.17.8", "0.17.9", ""], "0.17.9") == 2


RELEASES = st.tuples(*[st.integers(0, 99)] * 3).map(lambda t: ".".join(map(str, t)))


@given(RELEASES, RELEASES)
def test_no_step_goes_down(current: str, target: str) -> None:
    try:
        check_step(current, target, NAMED)
    except Refusal:
        return
    assert triple(target) > triple(current)
    assert target not in BAD_RELEASES


def test_a_log_tells_what_the_program_could_become() -> None:
    start = '2026-11-24 06:57:34.605Z info(io): opening "x"...'
    said = "2026-11-24 06:57:34.605Z info(main): release=0.17.8"
    offered = "2026-11-24 06:57:34.605Z info(main): releases_bundled={ 0.17.8, 0.17.9 }"
    assert parse([start, said, offered]).bundled == ("0.17.8", "0.17.9")
    assert parse([start, said, offered, start, said]).bundled == ()


def described(env_file: Path) -> Deployment:
    made = Sandbox("inventories/process.py", env_file.parent, (3000, 3001, 3002)).deployment
    return made.model_copy(update={"env_file": env_file})


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example, with a checksum recorded for its release."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    copy = tmp_path / "x.env"
    text = ENV_FILE.read_text().replace("SHA256_X86_64=", f"SHA256_X86_64={'a' * 64}")
    copy.write_text(text)
    copy.chmod(0o600)
    return copy


def test_the_release_is_recorded_and_the_old_ones_checksum_is_not_kept(env_file: Path) -> None:
    before = env_file.read_text()
    told = upgrade.record(described(env_file), "0.99.0")
    assert f"emptied, since they were 0.17.9's: {PREFIX}SHA256_X86_64" in told
    assert env_file.read_text() == before.replace("RELEASE=0.17.9", "RELEASE=0.99.0").replace(
        "a" * 64, ""
    )


def test_a_release_from_the_environment_is_not_written_behind_its_back(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = env_file.read_text()
    monkeypatch.setenv(f"{PREFIX}RELEASE", "0.17.9")
    assert "comes from your environment" in upgrade.record(described(env_file), "0.99.0")
    assert env_file.read_text() == before


def test_without_a_backup_no_age_is_made_up(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_DIR", str(env_file.parent))
    assert upgrade.backup_age(described(env_file), datetime.now(UTC)) is None
    broken = env_file.parent / "process" / "20261124T064500Z" / "manifest.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{}")
    assert upgrade.backup_age(described(env_file), datetime.now(UTC)) is None


def test_a_backup_counts_only_for_its_own_cluster(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_DIR", str(env_file.parent))
    now = datetime.now(UTC)
    for number, (cluster_id, hours) in enumerate([("0", 30), ("0", 2), ("7", 1)]):
        packed = [
            {
                "replica": i,
                "name": f"replica-{i}.gz",
                "size": 1,
                "sha256": "a" * 64,
                "data_size": 1,
                "release": "0.17.9",
                "op_checkpoint": 0,
                "commit_max": 0,
            }
            for i in range(3)
        ]
        manifest = Manifest(
            name=str(number),
            deployment="process",
            engine="tigerbeetle",
            cluster_id=cluster_id,
            replica_count=3,
            release="0.17.9",
            taken_at=now - timedelta(hours=hours),
            stopped_s=None,
            before=None,
            after=None,
            files=[PackedFile.model_validate(each) for each in packed],
        )
        path = env_file.parent / "process" / str(number) / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(manifest.model_dump_json())
    assert upgrade.backup_age(described(env_file), now) == timedelta(hours=2)
