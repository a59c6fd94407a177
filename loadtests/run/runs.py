"""What a run leaves on disk: ``runs/<run id>/``, git-ignored.

``run.json``        the manifest: cluster, engine, settings; written before the first transfer
``accounts-N.bin``  the accounts worker N created, packed ACCOUNT records
``record-N.bin``    every transfer worker N sent with its answer, packed RECORD records
``result.json``     what was measured; its presence says that the run ended properly
``faults.jsonl``    faults injected from outside, one ``{"at": unix seconds, "what": text}`` a line
``audit.json``, ``report.html``
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import IO

import numpy as np

from cluster.config import kept
from cluster.refusal import Refusal
from loadtests.client.records import ACCOUNT, RECORD, TRANSFER, Array, Rows, RowsOfFile

MANIFEST = "run.json"


def directory() -> Path:
    """Where runs are kept."""
    return kept.runs()


def try_to_write() -> None:
    """See that a run can be kept: locust goes on after an error at its start. Raises OSError."""
    directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory()) as tried:
        tried.write(b"x")


def new_tag() -> int:
    """A run's tag: milliseconds since 1970 above 16 random bits; user_data_64 of all it sends."""
    return time.time_ns() // 1_000_000 << 16 | secrets.randbits(16)


def name_of(tag: int) -> str:
    """The run's id, the name of its directory: sorts by time, and short enough to say aloud."""
    started = time.gmtime((tag >> 16) / 1000)
    return f"{time.strftime('%Y%m%d-%H%M%S', started)}-{tag & 0xFFFF:04x}"


def newest_first(file: str = MANIFEST) -> list[Path]:
    """The directories of all runs that have written this file."""
    written = sorted(directory().glob(f"*/{file}"), key=lambda path: path.stat().st_mtime_ns)
    return [path.parent for path in reversed(written)]


def places(name: str) -> tuple[Path, Path]:
    """Where a run of this id or path may be."""
    return Path(name), directory() / name


def find(name: str | None = None, file: str = MANIFEST) -> Path:
    """The directory of a run by id or path, or of the newest of all. Raises Refusal."""
    known = newest_first(file)
    if name:
        for path in places(name):
            if (path / file).is_file():
                return path
        like = known[0].name if known else "20260131-120000-1a2b"
        raise Refusal(
            f"run: expected an id such as {like}, found {name}. "
            f"Fix: name a directory in {directory()} with {file}"
        )
    if not known:
        fix = "load a cluster first, or name the directory of runs in LOADTESTS_RUNS"
        raise Refusal("run", expected=f"one with {file} in {directory()}", found="none", fix=fix)
    return known[0]


def write_json(path: Path, text: str) -> None:
    """Write the whole file or nothing: a reader never sees half of it."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def mark_fault(run: Path, what: str, at: float | None = None) -> None:
    """Note a fault for the report's plots: whoever injects one calls this."""
    line = json.dumps({"at": at if at is not None else time.time(), "what": what})
    with (run / "faults.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


class Recorder:
    """One worker's record of what it sent and what was answered, written packet by packet."""

    def __init__(self, run: Path, worker: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._run, self._worker = run, worker
        self._file: IO[bytes] = (run / f"record-{worker}.bin").open("wb", buffering=1 << 20)
        self.count = 0

    def accounts(self, accounts: Array) -> None:
        """Note the accounts this worker is about to use."""
        (self._run / f"accounts-{self._worker}.bin").write_bytes(accounts.tobytes())

    def add(self, events: bytes, results: Array | None) -> None:
        """Note packed transfers and their results; None: no usable answer, outcome unknown."""
        # As plain words: numpy copies nested records field by field, five times slower.
        sent = np.frombuffer(events, "<u8").reshape(-1, TRANSFER.itemsize // 8)
        lines = np.zeros((len(sent), RECORD.itemsize // 8), "<u8")
        lines[:, : sent.shape[1]] = sent
        if results is not None:
            lines[:, sent.shape[1] :] = results.view("<u8").reshape(len(sent), -1)
        self._file.write(lines.data)
        self.count += len(lines)

    def close(self) -> None:
        """Write out and close. Idempotent."""
        self._file.close()


def records_of(run: Path) -> list[Rows]:
    """Each worker's lines, read where they are asked for. Raises ValueError for a torn file."""
    return [RowsOfFile(path, RECORD) for path in sorted(run.glob("record-*.bin"))]


def accounts_of(run: Path) -> list[Rows]:
    """Each worker's accounts, as they were asked for. Raises ValueError for a torn file."""
    return [RowsOfFile(path, ACCOUNT) for path in sorted(run.glob("accounts-*.bin"))]
