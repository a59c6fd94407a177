"""What volumes hold decides whether formatting goes on: an interruption is told from a loss."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cluster import config
from cluster.refusal import Refusal
from cluster.runtimes import volumes
from cluster.runtimes.volumes import UID, Volume, decide, format_commands, holds_data, parse
from tests.unit.test_data_file import SUPERBLOCK

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))
MEMBERS = [f"0x{i + 1:032x}" for i in range(6)]


def name(index: int) -> str:
    return f"0_{index}.tigerbeetle"


def superblock(index: int) -> str:
    lines = [line for line in SUPERBLOCK.splitlines() if "replica_id" not in line]
    lines = [line for line in lines if "members" not in line]
    lines += [f"|||| vsr_state.members[{i}]={member}" for i, member in enumerate(MEMBERS)]
    return "\n".join([*lines, f"|||| vsr_state.replica_id={MEMBERS[index]}"])


def whole(index: int) -> Volume:
    return Volume(UID, (name(index),), superblock(index))


def partial(index: int) -> Volume:
    return Volume(UID, (f"{name(index)}.partial",))


EMPTY = Volume(UID)

PLANS: list[tuple[str, Mapping[int, Volume | None], str]] = [
    ("no volumes", {0: None, 1: None, 2: None}, "format"),
    ("empty volumes", {0: EMPTY, 1: EMPTY, 2: EMPTY}, "format"),
    ("fresh volumes of root", {0: Volume(0), 1: Volume(0), 2: None}, "format"),
    ("formatting was interrupted", {0: partial(0), 1: EMPTY, 2: None}, "format"),
    ("nothing was renamed", {0: partial(0), 1: partial(1), 2: partial(2)}, "format"),
    ("renaming was interrupted", {0: whole(0), 1: partial(1), 2: partial(2)}, "format"),
    ("all whole", {0: whole(0), 1: whole(1), 2: whole(2)}, "keep"),
]


@pytest.mark.parametrize(("found", "plan"), [p[1:] for p in PLANS], ids=[p[0] for p in PLANS])
def test_the_plan_follows_from_what_is_there(found: Mapping[int, Volume | None], plan: str) -> None:
    assert decide(found, CLUSTER) == plan


FOREIGN = Volume(UID, ("7_1.tigerbeetle",), superblock(1))
REFUSED: list[tuple[str, Mapping[int, Volume | None], str]] = [
    ("one is lost", {0: whole(0), 1: EMPTY, 2: whole(2)}, "replica 1: expected a data file"),
    ("a volume is lost", {0: whole(0), 1: None, 2: whole(2)}, "replica 1: expected a data file"),
    ("lost beside unfinished", {0: whole(0), 1: partial(1), 2: EMPTY}, "replica 1, 2: expected"),
    (
        "another's file",
        {0: whole(0), 1: Volume(UID, (name(1),), superblock(2)), 2: whole(2)},
        "found that of cluster 0, replica 2",
    ),
    ("another cluster's", {0: whole(0), 1: FOREIGN, 2: whole(2)}, "found 7_1.tigerbeetle"),
    ("another cluster's alone", {0: EMPTY, 1: FOREIGN, 2: EMPTY}, "found 7_1.tigerbeetle"),
    ("another owner", {0: Volume(0, (name(0),)), 1: whole(1), 2: whole(2)}, "found 0"),
    ("damaged", {0: Volume(UID, (name(0),), "panic"), 1: whole(1), 2: whole(2)}, "reads: panic"),
]


@pytest.mark.parametrize(("found", "says"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_must_not_be_formatted_is_refused(
    found: Mapping[int, Volume | None], says: str
) -> None:
    with pytest.raises(Refusal, match=says):
        decide(found, CLUSTER)


def test_a_file_that_a_running_replica_writes_is_not_judged_by_a_torn_read() -> None:
    running = Volume(UID, (name(0),), "torn", is_in_use=True)
    assert decide({0: running, 1: whole(1), 2: whole(2)}, CLUSTER) == "keep"


def scripts(found: Mapping[int, Volume | None]) -> list[str]:
    return [command[-1] for command in format_commands(CLUSTER, found)]


def test_all_are_formatted_before_any_is_renamed() -> None:
    said = scripts({0: partial(0), 1: EMPTY, 2: None})
    assert ["format" in script for script in said] == [True] * 3 + [False] * 3
    assert all("rm -f /data/0_" in script for script in said[:3])


def test_an_interrupted_renaming_formats_nothing() -> None:
    said = scripts({0: whole(0), 1: partial(1), 2: partial(2)})
    assert len(said) == 2
    assert not any("format" in script or "rm " in script for script in said)


def test_a_rename_never_replaces_a_file() -> None:
    for script in scripts({0: EMPTY, 1: EMPTY, 2: EMPTY})[3:]:
        assert script.startswith("test ! -e ")


def test_the_look_into_volumes_is_read_back() -> None:
    said = f"== 0 10001\n{name(0)}\n--\n|||| version=2\n== 2 0\nunreadable\n--\n"
    assert parse(said) == {
        0: Volume(10001, (name(0),), "|||| version=2\n"),
        2: Volume(0, ("unreadable",), ""),
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({0: None}, False),
        ({0: EMPTY}, False),
        ({0: partial(0)}, False),
        ({0: whole(0)}, True),
        ({0: EMPTY, 1: FOREIGN}, True),
    ],
)
def test_only_finished_files_are_data(found: Mapping[int, Volume | None], expected: bool) -> None:
    assert holds_data(found) is expected


def test_volumes_are_the_project_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    assert volumes.name(1) == "wallet-service_tigerbeetle-data-1"
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "other")
    assert volumes.name(1) == "other_tigerbeetle-data-1"
