"""What a replica's log tells: its role, view, release, and whether it panicked. Pure.

The lines are TigerBeetle 0.17's (seen in 0.17.9); the emulator writes the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

#: The first line of a start: what older lines say is no longer true.
_START = re.compile(r'info\(io\): opening "')
_RELEASE = re.compile(r"info\(main\): release=(\d+\.\d+\.\d+)")
_BUNDLED = re.compile(r"info\(main\): releases_bundled=\{ (.*) \}")
_LISTENING = re.compile(r": listening on ")
_TRANSITION = re.compile(
    r"info\(replica\): \d+\w: transition_to_(normal|view_change|recovering_head|recovering)"
    r"(?:_from_\w+?)?(?:_status)?: view=(?:\d+\.\.)?(\d+)(?:.* (primary|backup))?"
)
#: Every line begins with the replica's status, in capitals if it is its view's primary
#: (``LogPrefix`` in TigerBeetle's replica.zig). It is needed when older lines have rotated away.
_PREFIX = re.compile(r"\(replica\): \d+([nvrh]): ", re.IGNORECASE)
_STATUS_OF = {"n": "normal", "v": "view_change", "r": "recovering", "h": "recovering_head"}
_HEARTBEAT_LOST = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)Z warning\(replica\): .*: heartbeat lost "
)
#: A replica that has missed operations logs this at each newer operation that it cannot apply yet.
_LAGGING = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)Z warning\(replica\): \d+n: on_prepare: lagging behind "
    r"the cluster prepare\.op=(\d+) \(commit_min=\d+ op=(\d+) "
)
#: So many operations are in flight even when no replica lags (0.17's pipeline).
_PIPELINE = 8
#: State sync: its operations, its tables, each table copied, and its end. The superblock does not
#: show the end: it is written at the next checkpoint, which an idle cluster never reaches.
_SYNC_BEGUN = re.compile(r": (?:sync: ops=|state_machine_open_callback: sync_ops=)\d+\.\.(\d+)")
_SYNC_TABLES = re.compile(r": sync: (\d+) tables ")
_SYNC_TABLE = re.compile(r": sync_reclaim_tables: table synced or canceled: ")
_SYNC_ENDED = re.compile(r": sync_enqueue_tables: all tables synced ")
_PANIC = re.compile(r"\bpanic: ")
_MLOCK = re.compile(r"warning\(mlock\): ")


@dataclass(frozen=True)
class StateSync:
    """How many tables a replica that was far behind has copied from the others."""

    is_under_way: bool = False
    tables: int = 0
    copied: int = 0


@dataclass(frozen=True)
class ReplicaLog:
    """The facts of one replica's log since its last start; ``None`` or '' where there is none."""

    release: str = ""
    status: str = ""  # normal, view_change, recovering, recovering_head
    view: int | None = None
    is_primary: bool = False
    is_listening: bool = False
    heartbeat_lost_at: float | None = None  # seconds since 1970, since the last change of view
    lagged_at: float | None = None  # seconds since 1970, when it last could not follow
    sync: StateSync = StateSync()
    panics: tuple[str, ...] = ()  # over the whole text, not only the last start
    mlock_warnings: tuple[str, ...] = ()
    bundled: tuple[str, ...] = ()  # the releases that its program can be

    @property
    def role(self) -> str:
        """``primary``, ``backup``, or the status that keeps it from being either."""
        if self.status != "normal":
            return self.status or "-"
        return "primary" if self.is_primary else "backup"

    def after_death(self) -> ReplicaLog:
        """The facts that remain true after the process has ended."""
        return replace(
            self,
            status="",
            view=None,
            is_primary=False,
            is_listening=False,
            heartbeat_lost_at=None,
            lagged_at=None,
        )


def parse(lines: Iterable[str]) -> ReplicaLog:
    """Read a log, oldest line first; its beginning may have rotated away."""
    release, status, listening, primary = "", "", False, False
    is_whole, newest = False, ""
    view: int | None = None
    lost: float | None = None
    lagged: float | None = None
    sync = StateSync()
    panics, mlock = [], []
    bundled: tuple[str, ...] = ()
    for line in lines:
        if "(replica): " in line:
            newest = line
        if _START.search(line):
            is_whole = True
            release, status, view, listening, primary, lost = "", "", None, False, False, None
            sync, lagged = StateSync(), None
        elif match := _RELEASE.search(line):
            release, bundled = match[1], ()
        elif match := _BUNDLED.search(line):
            bundled = tuple(match[1].split(", "))
        elif match := _TRANSITION.search(line):
            status, view, primary, lost = match[1], int(match[2]), match[3] == "primary", None
        elif match := _HEARTBEAT_LOST.search(line):
            lost = _timestamp(match[1])
        elif match := _LAGGING.search(line):
            if int(match[2]) - int(match[3]) > _PIPELINE:
                lagged = _timestamp(match[1])
        elif _LISTENING.search(line):
            listening = True
        elif "sync" in line:
            sync = _sync_after(sync, line)
        elif _PANIC.search(line):
            panics.append(line.strip())
        elif _MLOCK.search(line):
            mlock.append(line.strip())
    if not status and not is_whole and (match := _PREFIX.search(newest)):
        status, primary = _STATUS_OF[match[1].lower()], match[1].isupper()
    return ReplicaLog(
        release,
        status,
        view,
        primary,
        listening,
        lost,
        lagged,
        sync,
        tuple(panics),
        tuple(mlock),
        bundled,
    )


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def _sync_after(sync: StateSync, line: str) -> StateSync:
    if match := _SYNC_BEGUN.search(line):
        return StateSync(is_under_way=int(match[1]) > 0)
    if match := _SYNC_TABLES.search(line):
        return replace(sync, tables=int(match[1]))
    if _SYNC_TABLE.search(line):
        return replace(sync, copied=sync.copied + 1)
    return StateSync() if _SYNC_ENDED.search(line) else sync
