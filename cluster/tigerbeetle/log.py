"""What a replica's log tells: its role, view, release, and whether it panicked. Pure.

The lines are TigerBeetle 0.17's (seen in 0.17.9); the emulator writes the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

#: The first line of a start: what older lines say is no longer true.
START = re.compile(r'info\(io\): opening "')
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
_WARNING = r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)Z warning\(replica\): "
_HEARTBEAT_LOST = re.compile(_WARNING + r".*: heartbeat lost ")
#: A replica that has missed operations logs this at each newer operation that it cannot apply yet.
_LAGGING = re.compile(
    _WARNING + r"\d+n: on_prepare: lagging behind the cluster prepare\.op=(\d+) "
    r"\(commit_min=\d+ op=(\d+) "
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
        return ReplicaLog(
            release=self.release,
            sync=self.sync,
            panics=self.panics,
            mlock_warnings=self.mlock_warnings,
            bundled=self.bundled,
        )


def parse(lines: Iterable[str]) -> ReplicaLog:
    """Read a log, oldest line first; its beginning may have rotated away."""
    return Reader().read(lines)


@dataclass
class Reader:
    """One replica's log as far as it has been read: what is new is read on top of it."""

    _said: ReplicaLog = ReplicaLog()
    _is_whole: bool = False  # its last start is in it
    _newest: str = ""

    def read(self, lines: Iterable[str]) -> ReplicaLog:
        """Read on, oldest line first; what all of it says."""
        for line in lines:
            if "(replica): " in line:
                self._newest = line
            if START.search(line):
                self._is_whole = True
                self._said = replace(self._said.after_death(), release="", sync=StateSync())
            else:
                self._said = _after(self._said, line)
        said = self._said
        if not said.status and not self._is_whole and (match := _PREFIX.search(self._newest)):
            status, is_primary = _STATUS_OF[match[1].lower()], match[1].isupper()
            return replace(said, status=status, is_primary=is_primary)
        return said


def _after(said: ReplicaLog, line: str) -> ReplicaLog:
    """What holds once the log has said this line, too."""
    if match := _RELEASE.search(line):
        return replace(said, release=match[1], bundled=())
    if match := _BUNDLED.search(line):
        return replace(said, bundled=tuple(match[1].split(", ")))
    if match := _TRANSITION.search(line):
        return replace(
            said,
            status=match[1],
            view=int(match[2]),
            is_primary=match[3] == "primary",
            heartbeat_lost_at=None,
        )
    if match := _HEARTBEAT_LOST.search(line):
        return replace(said, heartbeat_lost_at=_timestamp(match[1]))
    if match := _LAGGING.search(line):
        is_lagging = int(match[2]) - int(match[3]) > _PIPELINE
        return replace(said, lagged_at=_timestamp(match[1])) if is_lagging else said
    if _LISTENING.search(line):
        return replace(said, is_listening=True)
    if "sync" in line:
        return replace(said, sync=_sync_after(said.sync, line))
    if _PANIC.search(line):
        return replace(said, panics=(*said.panics, line.strip()))
    if _MLOCK.search(line):
        return replace(said, mlock_warnings=(*said.mlock_warnings, line.strip()))
    return said


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
