"""A replica's role, view and release are read from its log, and only its last life counts."""

from __future__ import annotations

import pytest

from cluster import REPOSITORY
from cluster.tigerbeetle import log
from cluster.tigerbeetle.log import StateSync, parse

#: Lines of a genuine 0.17.9 replica's log.
BOOT = """\
2026-11-23 05:06:07.728Z info(io): opening "0.tb"...
2026-11-23 05:06:09.128Z info(main): release=0.17.9
2026-11-23 05:06:09.128Z info(main): release_client_min=0.16.4
""".splitlines()
BACKUP = [
    "2026-11-23 05:06:56.467Z info(replica): 0R: transition_to_view_change_status: "
    "view=0..1 status=vsr.replica.Status.recovering..vsr.replica.Status.view_change",
    "2026-11-23 05:06:56.467Z info(main): 0: cluster=0: listening on "
    "net.SocketAddress{ .ip = 127.0.0.1, .port = 4100 }",
    "2026-11-23 05:06:57.313Z info(replica): 0n: transition_to_normal_from_view_change_status: "
    "view=1..1 backup",
]
PRIMARY = [
    "2026-11-23 05:06:57.311Z info(replica): 1N: transition_to_normal_from_view_change_status: "
    "view=1..1 primary"
]
FRESH = [
    "2026-11-23 05:06:57.195Z info(replica): 1n: transition_to_normal_from_recovering_status: "
    "view=0 backup"
]


def test_a_backup_is_read_from_its_last_transition() -> None:
    log = parse([*BOOT, *BACKUP])
    assert (log.status, log.view, log.role) == ("normal", 1, "backup")
    assert log.release == "0.17.9"
    assert log.is_listening


def test_a_primary_is_read_from_its_last_transition() -> None:
    log = parse([*BOOT, *FRESH, *PRIMARY])
    assert (log.view, log.role) == (1, "primary")


def test_a_view_without_a_range_is_read() -> None:
    assert parse([*BOOT, *FRESH]).view == 0


def test_during_a_view_change_a_replica_is_neither() -> None:
    log = parse([*BOOT, *FRESH, BACKUP[0]])
    assert (log.status, log.role) == ("view_change", "view_change")


def test_what_was_said_before_a_restart_no_longer_holds() -> None:
    log = parse([*BOOT, *BACKUP, BOOT[0]])
    assert (log.release, log.status, log.view, log.is_listening) == ("", "", None, False)
    assert log.role == "-"


def test_a_panic_is_remembered_across_restarts() -> None:
    panic = "thread 7 panic: superblock not found"
    assert parse([*BOOT, panic, *BOOT]).panics == (panic,)
    assert parse(BOOT).panics == ()


def test_an_unlocked_memory_warning_is_kept() -> None:
    warning = (
        "2026-11-23 05:06:57Z warning(mlock): Unable to lock pages in memory (memory would exceed "
        "RLIMIT_MEMLOCK) - kernel swap would otherwise bypass the storage fault tolerance."
    )
    assert parse([*BOOT, warning]).mlock_warnings == (warning,)
    assert parse(BOOT).mlock_warnings == ()


def test_a_dead_replica_keeps_its_past_and_loses_its_role() -> None:
    dead = parse([*BOOT, *PRIMARY]).after_death()
    assert (dead.release, dead.role, dead.view) == ("0.17.9", "-", None)


SUSPENDING = (
    "2026-11-28 00:24:19.949Z warning(replica): 1n: on_messages: suspending command=prepare "
    "op=11303 view=3 checksum=838c261f74718f1098ca254b9ec73305"
)


@pytest.mark.parametrize(
    ("prefix", "status", "role"),
    [
        ("1n", "normal", "backup"),
        ("1N", "normal", "primary"),
        ("1v", "view_change", "view_change"),
        ("1V", "view_change", "view_change"),
        ("1R", "recovering", "recovering"),
        ("1h", "recovering_head", "recovering_head"),
    ],
)
def test_a_log_whose_beginning_has_rotated_away_still_tells_the_role(
    prefix: str, status: str, role: str
) -> None:
    log = parse([SUSPENDING, SUSPENDING.replace("1n:", f"{prefix}:"), "info(trace): 1: slow"])
    assert (log.status, log.role, log.view) == (status, role, None)


def test_a_transition_outweighs_what_later_lines_begin_with() -> None:
    assert parse([*PRIMARY, SUSPENDING]).role == "primary"


def test_a_replica_that_has_just_started_has_no_role_by_its_lines_alone() -> None:
    assert parse([SUSPENDING, *BOOT]).role == "-"
    assert parse([*BOOT, SUSPENDING.replace("1n:", "1R:")]).role == "-"


def test_an_empty_log_says_nothing() -> None:
    log = parse([])
    assert (log.release, log.role, log.view, log.is_listening) == ("", "-", None, False)


LOST = (
    "2026-11-23 05:07:00.500Z warning(replica): 0n: tick_normal_heartbeat_fault: heartbeat lost "
    "(interval=488.545ms delay=2.434s)"
)


def test_a_backup_that_hears_no_primary_says_when() -> None:
    log = parse([*BOOT, *BACKUP, LOST])
    assert (log.role, log.heartbeat_lost_at) == ("backup", 1795410420.5)


def test_a_new_view_or_a_restart_ends_the_silence() -> None:
    assert parse([*BOOT, *BACKUP, LOST, BACKUP[-1]]).heartbeat_lost_at is None
    assert parse([*BOOT, *BACKUP, LOST, *BOOT]).heartbeat_lost_at is None
    assert parse([*BOOT, *BACKUP, LOST]).after_death().heartbeat_lost_at is None


LAGGING = (
    "2026-11-24 08:25:47.811Z warning(replica): 2n: on_prepare: lagging behind the cluster "
    "prepare.op=12441 (commit_min=10606 op=11567 commit_max=12438)"
)


def test_a_replica_that_cannot_follow_says_when() -> None:
    log = parse([*BOOT, *BACKUP, LAGGING])
    assert (log.role, log.lagged_at) == ("backup", 1795508747.811)


def test_what_is_on_its_way_to_everybody_is_no_lag() -> None:
    close = LAGGING.replace("op=11567", "op=12433")
    assert parse([*BOOT, *BACKUP, close]).lagged_at is None
    assert parse([*BOOT, *BACKUP, close.replace("op=12433", "op=12432")]).lagged_at is not None


def test_another_life_has_not_lagged() -> None:
    assert parse([*BOOT, *BACKUP, LAGGING, *BOOT]).lagged_at is None
    assert parse([*BOOT, *BACKUP, LAGGING]).after_death().lagged_at is None


SYNC = """\
2026-11-24 07:52:12.418Z info(io): opening "0_2.tigerbeetle"...
2026-11-24 07:52:35.037Z info(replica): 2v: state_machine_open_callback: sync_ops=0..0
2026-11-24 07:52:35.076Z info(replica): 2n: transition_to_normal_from_view_change_status: view=3..3 backup
2026-11-24 07:52:35.089Z info(replica): 2n: sync: ops=0..3871/0..3871
2026-11-24 07:52:35.234Z info(replica): 2n: state_machine_open_callback: sync_ops=0..3871
2026-11-24 07:52:35.234Z info(replica): 2n: sync: 14 tables (by level: { 14, 0, 0, 0, 0, 0, 0 })
2026-11-24 07:52:35.295Z info(replica): 2n: sync_reclaim_tables: table synced or canceled: address=34 checksum=7f wrote=2/2
2026-11-24 07:52:35.295Z info(replica): 2n: sync_reclaim_tables: table synced or canceled: address=4 checksum=aa wrote=2/2
2026-11-24 07:52:35.533Z info(replica): 2n: sync_enqueue_tables: all tables synced (commit=0..3871/3871)
""".splitlines()  # noqa: E501 - the lines as 0.17.9 wrote them


def test_a_replica_that_copies_the_others_state_says_how_far_it_has_come() -> None:
    assert not parse(SYNC[:3]).sync.is_under_way  # normal, and it does not know yet
    assert parse(SYNC[:4]).sync == StateSync(True)
    assert parse(SYNC[:8]).sync == StateSync(True, tables=14, copied=2)
    assert parse(SYNC).sync == StateSync()
    assert not parse([*SYNC[:8], SYNC[0]]).sync.is_under_way  # another life
    assert parse([*SYNC[:8], SYNC[0], SYNC[4]]).sync.is_under_way  # which goes on with it


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_log_read_in_parts_says_what_it_says_as_a_whole(size: int) -> None:
    lines = (REPOSITORY / "tests/monitoring/fixtures/replica.log").read_text().splitlines()
    reader, seen = log.Reader(), 0
    while seen < len(lines):
        said = reader.read(lines[seen : seen + size])
        seen += size
        assert said == log.parse(lines[:seen])
