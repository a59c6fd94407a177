"""The manifest binds a set: nothing missing, damaged, foreign, newer or mixed passes for whole."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.config.deployment import Deployment
from cluster.operate.backup import packing, sets
from cluster.operate.backup.retention import Policy
from cluster.operate.backup.sets import Damaged, Manifest
from cluster.refusal import Refusal
from cluster.runtimes import of
from cluster.tigerbeetle import totals
from cluster.tigerbeetle.data_file import ACCEPTED, REPLACED, RESTORING, Identity, Superblock
from cluster.tigerbeetle.totals import LedgerTotals, Totals

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))
OURS = Deployment(
    name="process",
    engine="tigerbeetle",
    runtime="process",
    cluster=CLUSTER,
    state_dir=Path("/nowhere/process"),
)


def made_set(directory: Path, contents: str = "abc", **changes: Any) -> Path:
    """A whole set of three little files."""
    directory.mkdir(parents=True)
    files = []
    for index, content in enumerate(contents):
        path = directory / f"replica-{index}.gz"
        path.write_text(content)
        superblock = Superblock(Identity(CLUSTER.id, index, 3, "0.17.9"), 0, 0)
        files.append(sets.packed_file(path, superblock, 1))
    fields: dict[str, Any] = {
        "name": directory.name,
        "deployment": "process",
        "engine": "tigerbeetle",
        "cluster_id": str(CLUSTER.id),
        "replica_count": 3,
        "release": "0.17.9",
        "taken_at": datetime.now(UTC),
        "stopped_s": 6.0,
        "before": None,
        "after": None,
        "files": files,
    }
    manifest = Manifest(**(fields | changes))
    (directory / sets.MANIFEST).write_text(manifest.model_dump_json())
    return directory


def test_a_whole_set_passes(tmp_path: Path) -> None:
    made = made_set(tmp_path / "20261124T000000Z")
    manifest = sets.read(made)
    sets.refuse_foreign(manifest, OURS)
    sets.check_files(made, manifest)


def flip_a_byte(made: Path) -> None:
    (made / "replica-1.gz").write_text("B")


def remove_a_file(made: Path) -> None:
    (made / "replica-2.gz").unlink()


def swap_two_files(made: Path) -> None:
    (made / "replica-0.gz").rename(made / "aside")
    (made / "replica-1.gz").rename(made / "replica-0.gz")
    (made / "aside").rename(made / "replica-1.gz")


def mix_in_another_sets_file(made: Path) -> None:
    other = made_set(made.parent / "20261124T000001Z", "xyz")
    (other / "replica-2.gz").replace(made / "replica-2.gz")


@pytest.mark.parametrize(
    "damage", [flip_a_byte, remove_a_file, swap_two_files, mix_in_another_sets_file]
)
def test_a_set_that_is_not_what_was_written_is_refused_whole(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    made = made_set(tmp_path / "20261124T000000Z")
    damage(made)
    with pytest.raises(Damaged, match=r"replica-\d\.gz: expected"):
        sets.check_files(made, sets.read(made))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster_id": "7"}, r"found one of cluster 7 \(process, tigerbeetle\) with 3"),
        ({"engine": "emulator"}, r"found one of cluster 0 \(process, emulator\) with 3"),
        ({"deployment": "local"}, r"found one of cluster 0 \(local, tigerbeetle\) with 3"),
        ({"deployment": "local"}, "this one under an earlier name, give it back: local"),
        ({"release": "0.18.0"}, "no release reads a newer one's files"),
        ({"release": "0.17.10"}, "no release reads a newer one's files"),
    ],
)
def test_a_foreign_or_newer_set_is_refused(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    manifest = sets.read(made_set(tmp_path / "20261124T000000Z", **changes))
    with pytest.raises(Refusal, match=said):
        sets.refuse_foreign(manifest, OURS)


def test_an_older_releases_set_is_not_refused(tmp_path: Path) -> None:
    manifest = sets.read(made_set(tmp_path / "20261124T000000Z", release="0.17.8"))
    sets.refuse_foreign(manifest, OURS)


@pytest.mark.parametrize("contents", ["ab", ""])
def test_a_part_of_a_set_is_no_backup(tmp_path: Path, contents: str) -> None:
    made = made_set(tmp_path / "20261124T000000Z", contents)
    with pytest.raises(Refusal, match="a part of one restores nothing"):
        sets.read(made)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', "not JSON"])
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / sets.MANIFEST).write_text(text)
    with pytest.raises(Refusal, match="expected the manifest of a backup") as refused:
        sets.read(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="expected a backup, a directory with manifest"):
        sets.read(tmp_path)


def test_a_file_that_leads_out_of_its_directory_is_refused(tmp_path: Path) -> None:
    made = made_set(tmp_path / "20261124T000000Z")
    path = made / sets.MANIFEST
    path.write_text(path.read_text().replace("replica-0.gz", "../replica-0.gz"))
    with pytest.raises(Refusal, match="expected the manifest of a backup"):
        sets.read(made)


@pytest.mark.parametrize(
    "found",
    [
        Superblock(Identity(CLUSTER.id, 1, 3, "0.17.9"), 0, 0),
        Superblock(Identity(7, 0, 3, "0.17.9"), 0, 0),
        Superblock(Identity(CLUSTER.id, 0, 6, "0.17.9"), 0, 0),
        Superblock(Identity(CLUSTER.id, 0, 3, "0.17.9"), 960, 0),
    ],
)
def test_an_unpacked_file_that_is_not_the_manifests_is_refused(
    tmp_path: Path, found: Superblock
) -> None:
    manifest = sets.read(made_set(tmp_path / "20261124T000000Z"))
    first = manifest.files[0]
    sets.identify(manifest, first, Superblock(Identity(CLUSTER.id, 0, 3, "0.17.9"), 0, 0))
    with pytest.raises(Damaged, match=r"replica-0\.gz: expected cluster"):
        sets.identify(manifest, first, found)


def test_only_the_oldest_sets_of_this_cluster_are_let_go(tmp_path: Path) -> None:
    for minute in range(4):
        made_set(tmp_path / f"20261124T00{minute:02}00Z")
    made_set(tmp_path / "20260101T000000Z", cluster_id="7")
    (tmp_path / "20250101T000000Z").mkdir()  # not whole
    (tmp_path / "20250101T000000Z" / sets.MANIFEST).write_text("{}")
    (tmp_path / "my own copy").mkdir()
    found = sets.expired(tmp_path, OURS, Policy(last=3))
    assert [path.name for path in found] == ["20261124T000000Z"]
    assert sets.expired(tmp_path, OURS, Policy(last=4)) == []


def test_the_newest_set_is_taken_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))
    with pytest.raises(Refusal, match=r"FROM: expected a backup of cluster 0 \(process, .* under"):
        sets.chosen(None, OURS)
    made_set(tmp_path / "process" / "20261124T000000Z")
    newest = made_set(tmp_path / "process" / "20261124T000100Z")
    assert sets.chosen(None, OURS) == newest
    assert sets.chosen("20261124T000000Z", OURS).name == "20261124T000000Z"
    assert sets.chosen(str(tmp_path), OURS) == tmp_path


@pytest.mark.parametrize(
    "foreign", [{"cluster_id": "7"}, {"engine": "emulator"}, {"deployment": "local"}]
)
def test_another_cluster_s_newer_set_is_neither_taken_nor_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: dict[str, str]
) -> None:
    """A directory is a deployment's: another cluster may have had its name."""
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))
    own = [made_set(tmp_path / "process" / f"20261124T00000{n}Z") for n in range(2)]
    made_set(tmp_path / "process" / "20260101T000000Z", **foreign)
    made_set(tmp_path / "process" / "20261124T000100Z", **foreign)
    assert sets.chosen(None, OURS) == own[1]
    assert sets.expired(tmp_path / "process", OURS, Policy(last=1)) == [own[0]]


def test_a_newest_set_that_does_not_say_whose_it_is_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))
    made_set(tmp_path / "process" / "20261124T000000Z")
    newest = made_set(tmp_path / "process" / "20261124T000100Z")
    (newest / sets.MANIFEST).write_text("{}")
    with pytest.raises(Refusal, match="expected the manifest of a backup"):
        sets.chosen(None, OURS)


def ledgers(**fields: int) -> Totals:
    return Totals(ledgers={700: LedgerTotals.model_validate({"accounts": 2, **fields})})


def test_equal_readings_before_and_after_prove_equality() -> None:
    read = ledgers(debits_posted=5, credits_posted=5, last_transfer_ns=9)
    assert totals.outside(read, read, read) == []
    less = ledgers(debits_posted=4, credits_posted=4, last_transfer_ns=8)
    assert len(totals.outside(less, read, read)) == 3
    more = ledgers(debits_posted=6, credits_posted=6, last_transfer_ns=10)
    assert len(totals.outside(more, read, read)) == 3


def test_under_load_what_was_read_before_is_the_least() -> None:
    floor, later = ledgers(debits_posted=5), ledgers(debits_posted=9)
    assert totals.outside(ledgers(debits_posted=7), floor, later) == []
    assert totals.outside(ledgers(debits_posted=4), floor, later) == [
        "ledger 700: expected debits_posted at least 5, found 4"
    ]


def test_what_was_in_flight_at_the_stop_may_be_in_the_backup_alone() -> None:
    floor, later = ledgers(debits_posted=5), ledgers(debits_posted=9)
    assert totals.outside(ledgers(debits_posted=10), floor, later) == []


def test_a_ledger_that_vanished_or_appeared_is_named() -> None:
    read = ledgers(debits_posted=5)
    assert "ledger 700: expected accounts 2, found 0" in totals.outside(Totals(), read, read)
    assert "ledger 700: expected accounts 0, found 2" in totals.outside(read, Totals(), Totals())


@pytest.mark.parametrize("side", ["debits_posted", "credits_posted", "debits_pending"])
def test_a_ledger_out_of_balance_is_named(side: str) -> None:
    assert totals.unbalanced(ledgers(**{side: 1}))[0].startswith("ledger 700: expected debits")


# The scripts, run by a real shell on little files.


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Any]:
    deployment = Deployment(
        name="emulator",
        engine="emulator",
        runtime="process",
        cluster=CLUSTER.on_loopback(),
        state_dir=tmp_path / "it's mine",
    )
    runtime = of(deployment)
    path = Path(runtime.data_file(0))
    path.parent.mkdir(parents=True)
    return path, runtime


def shell(script: str) -> int:
    return subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode


def restoring(path: Path) -> Path:
    return path.with_name(path.name + RESTORING)


@pytest.mark.parametrize("suffix", ["zst", "gz"])
def test_unpacking_gives_every_byte_and_leaves_the_data_file_alone(
    data: tuple[Path, Any], tmp_path: Path, suffix: str
) -> None:
    path, runtime = data
    path.write_text("old")
    content = b"money" + bytes(3 * 1024**2) + b"more" + bytes(2 * 1024**2)
    (tmp_path / "raw").write_bytes(content)
    packed = tmp_path / f"replica-0.{suffix}"
    packer = {"zst": "zstd -q -c", "gz": "gzip -c"}[suffix]
    if shell(f"{packer} '{tmp_path}/raw' >'{packed}'") != 0:
        pytest.skip(f"apt-get install {packer.split()[0]}")
    copy = f"{sets.UNPACK[suffix]} '{packed}'"
    assert shell(packing.unpack(runtime, 0, copy, len(content))) == 0
    assert restoring(path).read_bytes() == content
    assert restoring(path).stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "old"
    assert shell(packing.unpack(runtime, 0, copy, len(content) + 1)) != 0


def test_a_swap_can_be_undone_and_accepted(data: tuple[Path, Any]) -> None:
    path, runtime = data
    path.write_text("old")
    restoring(path).write_text("new")
    assert shell(packing.on_files(packing.SWAP, runtime, 0)) == 0
    assert path.read_text() == "new"
    assert shell(packing.on_files(packing.REFUSE_LEFTOVER, runtime, 0)) != 0
    assert shell(packing.on_files(packing.UNDO, runtime, 0)) == 0
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    restoring(path).write_text("new")
    assert shell(packing.on_files(packing.SWAP, runtime, 0)) == 0
    for _ in range(2):  # safe to repeat
        assert shell(packing.on_files(packing.ACCEPT, runtime, 0)) == 0
        assert path.read_text() == "new"
        assert shell(packing.on_files(packing.DROP, runtime, 0)) == 0
        assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_restore_to_new_disks_that_was_cut_off_before_its_end_can_be_repeated(
    data: tuple[Path, Any],
) -> None:
    path, runtime = data
    restoring(path).write_text("first")
    again = (packing.REFUSE_LEFTOVER, packing.ACCEPT, packing.DROP)
    assert shell(packing.on_files(packing.SWAP, runtime, 0)) == 0
    for script in again:
        assert shell(packing.on_files(script, runtime, 0)) == 0
    restoring(path).write_text("half")
    assert shell(packing.on_files(packing.DISCARD, runtime, 0)) == 0
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    restoring(path).write_text("second")
    assert shell(packing.on_files(packing.SWAP, runtime, 0)) == 0
    assert path.read_text() == "second"
    assert shell(packing.on_files(packing.UNDO, runtime, 0)) == 0
    assert path.read_text() == "first"  # which somebody may have used since


def test_a_refused_leftover_changes_nothing(data: tuple[Path, Any]) -> None:
    path, runtime = data
    for name, text in (("", "new"), (REPLACED, "old"), (ACCEPTED, "older")):
        path.with_name(path.name + name).write_text(text)
    assert shell(packing.on_files(packing.REFUSE_LEFTOVER, runtime, 0)) != 0
    assert sorted(p.read_text() for p in path.parent.iterdir()) == ["new", "old", "older"]


def test_undoing_where_there_was_no_file_leaves_none(data: tuple[Path, Any]) -> None:
    path, runtime = data
    restoring(path).write_text("new")
    assert shell(packing.on_files(packing.SWAP, runtime, 0)) == 0
    assert path.read_text() == "new"
    assert shell(packing.on_files(packing.UNDO, runtime, 0)) == 0
    assert list(path.parent.iterdir()) == []


def test_undoing_what_never_began_touches_nothing(data: tuple[Path, Any]) -> None:
    path, runtime = data
    path.write_text("old")
    restoring(path).write_text("half")
    assert shell(packing.on_files(packing.UNDO, runtime, 0)) == 0
    assert path.read_text() == "old"
    assert not restoring(path).exists()


def test_one_failure_fails_all_scripts_that_run_together() -> None:
    assert shell(packing.together(["true", "true"])) == 0
    assert shell(packing.together(["exit 3", "true"])) == 1
    assert shell(packing.together(["true", "sleep 0.1; exit 3"])) == 1


def test_a_backup_without_room_is_refused_before_the_stop(
    data: tuple[Path, Any], tmp_path: Path
) -> None:
    path, runtime = data
    with path.open("wb") as file:
        file.truncate(2**42)  # sparse: it has no blocks
    done = subprocess.run(
        ["sh", "-c", packing.require_room(runtime, [0], tmp_path / "to", "free some")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "backup: expected 4194304 MiB free in" in done.stderr
    path.write_text("small")
    assert shell(packing.require_room(runtime, [0], tmp_path / "to", "free some")) == 0


def test_the_room_is_for_all_files_together(data: tuple[Path, Any], tmp_path: Path) -> None:
    _, runtime = data
    free = shutil.disk_usage(tmp_path).free
    for index in (0, 1):
        path = Path(runtime.data_file(index))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(free * 2 // 3)  # sparse: each would fit alone
        assert shell(packing.require_room(runtime, [index], tmp_path / "to", "")) == 0
    assert shell(packing.require_room(runtime, [0, 1], tmp_path / "to", "")) == 1
