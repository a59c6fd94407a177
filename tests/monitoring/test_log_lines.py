"""What a replica's log means: known lines by the catalogue, unknown ones by their level."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.health import doctor, watch
from cluster.tigerbeetle import log_lines
from cluster.tigerbeetle.log_lines import Kind

STAMP = "2026-11-23 05:06:57.311Z "
#: A genuine 0.17.9 replica: started, chosen primary, loaded, audited. Nothing went wrong.
CLEAN = (Path(__file__).parent / "fixtures" / "replica.log").read_text().splitlines()


LINES: dict[Kind, list[str]] = {
    "act": [
        "thread 7 panic: superblock not found",
        "thread 9 panic: something new",
        "error: AddressNotAvailable",
        "error(io): io_uring is not available",
        "error(new): nobody has described this",
        STAMP + "warning(grid): 1: invalid_checksum: expected address=7",
        STAMP + "warning(clock): 1: system time is 70ms behind, clamping system time",
        STAMP + "warning(superblock): repair: copy=0",
    ],
    "look": [
        STAMP + "warning(new): nobody has described this",
        STAMP + "warning(mlock): Unable to lock pages in memory",
        STAMP
        + "error(clock): 1: no agreement on cluster time (partitioned or too many clock faults)",
        STAMP + "warning(replica): 0n: tick_normal_heartbeat_fault: heartbeat lost (i=1)",
        STAMP + "warning(replica): 1n: on_prepare: lagging behind the cluster prepare.op=9",
    ],
    "change": [
        STAMP + "info(replica): 1N: transition_to_normal_from_recovering_status: view=1 primary",
        STAMP + "info(main): 0: cluster=0: listening on net.SocketAddress{ .port = 1 }",
    ],
    "normal": [
        STAMP + "info(message_bus): 0: on_recv: from=vsr.Peer{ .unknown = void } orderly shutdown",
        # The word "error" makes no error: these two are in every boot.
        STAMP + "warning(message_bus): 0: on_connect: error to=2 error.ConnectionRefused",
        STAMP + "error(multiversioning): binary does not contain valid multiversion data",
        "",
    ],
}


SYNC = (
    STAMP + "info(replica): 1n: sync: ops=0..3871/0..3871",
    STAMP + "info(replica): 1n: sync_enqueue_tables: all tables synced (commit=0..3871/3871)",
)
MISSING = (
    STAMP + "warning(grid): 1: invalid_checksum: expected address=2861 "
    "checksum=81712c57963cac4a6bbcdbd03f78070c, "
    "found address=0 checksum=00000000000000000000000000000000"
)
DAMAGED = MISSING.replace("found address=0 checksum=00", "found address=2861 checksum=1f")


@pytest.mark.parametrize(
    ("lines", "acts"),
    [
        ([SYNC[0], MISSING, MISSING, SYNC[1]], 0),  # as a recovered replica says it (0.17.9)
        ([SYNC[0], MISSING], 0),
        ([MISSING], 1),
        ([MISSING, *SYNC], 1),
        ([*SYNC, MISSING], 1),
        ([SYNC[0], DAMAGED, SYNC[1]], 1),
        ([SYNC[0], STAMP + 'info(io): opening "0_1.tigerbeetle"...', MISSING], 1),
    ],
)
def test_a_block_that_is_not_there_is_damage_unless_the_state_is_being_copied(
    lines: list[str], acts: int
) -> None:
    assert len(list(log_lines.to_act_upon([*CLEAN, *lines]))) == acts


@pytest.mark.parametrize(
    ("line", "kind"), [(line, kind) for kind, lines in LINES.items() for line in lines]
)
def test_a_line_is_of_its_kind(line: str, kind: Kind) -> None:
    assert log_lines.read(line).kind == kind


def test_a_genuine_log_without_mishap_is_clean() -> None:
    assert len(CLEAN) > 50
    assert list(log_lines.to_act_upon(CLEAN)) == []


@pytest.mark.parametrize(
    "line", ["thread 7 panic: reached unreachable code", STAMP + "error(storage): read failed"]
)
def test_a_log_with_one_bad_line_is_not_clean(line: str) -> None:
    (found,) = log_lines.to_act_upon([*CLEAN, line])
    assert found.text in line


def test_level_and_timestamp_are_taken_apart() -> None:
    reading = log_lines.read(STAMP + "warning(mlock): Unable to lock\n")
    assert (reading.level, reading.text) == ("warning", "warning(mlock): Unable to lock")


@pytest.mark.parametrize("entry", log_lines.entries(), ids=lambda e: e.match.pattern)
def test_an_entry_says_what_it_means_and_where_it_was_seen(entry: log_lines.Entry) -> None:
    assert entry.kind in {"normal", "change", "look", "act"}
    assert len(entry.meaning) > 15 and not entry.meaning.endswith(".")
    assert re.fullmatch(r"\d+\.\d+\.\d+", entry.seen)


def test_every_line_of_the_clean_log_that_is_not_info_is_explained() -> None:
    warnings = [log_lines.read(line) for line in CLEAN]
    assert [w.text for w in warnings if w.level in ("warning", "error") and not w.meaning] == []


FOLLOWED_FILES = """\
==> /x/process/replica-0/replica.log <==
first of 0

==> /x/process/replica-2/replica.log <==
first of 2
second of 2

==> /x/process/replica-0/replica.log <==
second of 0
""".splitlines()
FOLLOWED_CONTAINERS = ["tigerbeetle-0  | first of 0", "tigerbeetle-2  | first of 2"]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (FOLLOWED_FILES, ["0 first of 0", "2 first of 2", "2 second of 2", "0 second of 0"]),
        (FOLLOWED_CONTAINERS, ["0 first of 0", "2 first of 2"]),
    ],
)
def test_followed_lines_belong_to_their_replica(printed: list[str], expected: list[str]) -> None:
    assert [f"{replica} {line}" for replica, line in watch.by_replica(printed)] == expected


def test_a_line_is_shown_with_its_meaning() -> None:
    shown = watch.rendered("2", log_lines.read(STAMP + "thread 7 panic: superblock not found"))
    assert shown.plain.startswith("2 act    thread 7 panic: superblock not found  <- ")
    assert str(shown.spans[0].style) == watch.STYLES["act"]


def test_the_catalogue_is_data() -> None:
    assert log_lines.CATALOGUE == REPOSITORY / "cluster" / "tigerbeetle" / "log_lines.toml"
    assert len(log_lines.entries()) >= 35


def test_the_doctor_tells_each_meaning_once() -> None:
    said = "\n".join([*CLEAN, *[STAMP + f"warning(grid): {i}: invalid_checksum" for i in range(9)]])
    (finding,) = doctor._in_log("tigerbeetle-0", said)
    assert finding.key == "log" and "a block of the data file is damaged" in finding.text


def test_the_doctor_tells_an_error_that_nobody_has_described() -> None:
    (finding,) = doctor._in_log("tigerbeetle-0", STAMP + "error(new): something")
    assert "nobody has described" in finding.text and "error(new): something" in finding.text
