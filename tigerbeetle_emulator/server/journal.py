"""The data file: which cluster it belongs to, and every step taken, written before the reply.

A block of 4096 bytes names cluster and replica; behind it come the entries, each a 48-byte head
and, for a request, the message as it was received. An entry is summed so that a half-written one
is recognised. Without `sync`, a killed process loses nothing, but a power failure may lose the
last seconds. With `sync`, a reply is sent only when the disk has the request.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

try:
    import fcntl
except ImportError:  # Windows: a ledger in memory needs no lock
    fcntl = None  # type: ignore[assignment]

from ..protocol.aegis import checksum
from ..protocol.wire import BODY_SIZE_MAX, HEADER_SIZE
from .replica import PULSE, REQUEST, Entry

BLOCK_SIZE = 4096
_MAGIC = b"TIGERBEETLE-EMU1"
_ENTRY_MAGIC = b"tbe1"
# checksum of the rest of the block, magic, cluster, replica, replica_count, release
_BLOCK = struct.Struct("<16s16s16sBBxxI")
# checksum, magic, kind, message size, zero, timestamp, number of the entry
_HEAD = struct.Struct("<16s4sIIIQQ")


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


class DataFileError(Exception):
    """The data file cannot be used; the message says why and what to do."""


class Identity(NamedTuple):
    """What a data file belongs to."""

    cluster: int
    replica: int
    replica_count: int
    release: int

    def __str__(self) -> str:
        return f"cluster {self.cluster}, replica {self.replica} of {self.replica_count}"


def format_file(path: Path, identity: Identity) -> None:
    """Create a data file, readable by its owner only.

    Raises FileExistsError: an existing file is never touched.
    """
    block = bytearray(BLOCK_SIZE)
    cluster, *others = identity
    _BLOCK.pack_into(block, 0, bytes(16), _MAGIC, cluster.to_bytes(16, "little"), *others)
    block[0:16] = checksum(memoryview(block)[16:])
    with open(path, "xb", buffering=0, opener=partial(os.open, mode=0o600)) as file:
        file.write(block)
        os.fsync(file)


def read_identity(path: Path) -> Identity:
    """What the data file at `path` belongs to. Raises DataFileError."""
    try:
        with path.open("rb") as file:
            block = file.read(BLOCK_SIZE)
    except FileNotFoundError:
        raise DataFileError(
            f"{path}: no such data file; create it with `format` while the cluster is new"
        ) from None
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(block) < BLOCK_SIZE or block[16:32] != _MAGIC:
        raise DataFileError(
            f"{path}: not an emulator data file; a file formatted by the genuine tigerbeetle "
            "belongs to the genuine server. It was not touched"
        )
    if checksum(block[16:]) != block[:16]:
        raise DataFileError(f"{path}: its first block is damaged; restore the file from a backup")
    _, _, cluster, replica, replica_count, release = _BLOCK.unpack_from(block)
    return Identity(int.from_bytes(cluster, "little"), replica, replica_count, release)


class FileJournal:
    """An open, locked data file."""

    def __init__(self, path: Path, sync: bool = False) -> None:
        """Open and lock `path`. Raises DataFileError."""
        if not fcntl:
            raise DataFileError(
                f"{path}: expected a system with fcntl, to lock the data file, found none; "
                "keep the ledger in memory: run() without `path`"
            )
        self.path, self._sync = path, sync
        self.identity = read_identity(path)
        #: A half-written last entry that was cut off: where, and how many bytes.
        self.truncated: tuple[int, int] | None = None
        self._file: BinaryIO = path.open("r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise DataFileError(f"{path}: another process holds the data file lock") from None
        self._end = BLOCK_SIZE
        self._number = 0

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Release the file and its lock, which a forked child would keep."""
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()

    def append(self, entry: Entry) -> None:
        """Write an entry behind the last one.

        Raises DataFileError after removing what was written of it, when the disk is full or fails:
        nothing acknowledged is lost, and the file stays readable.
        """
        head = _pack_head(entry, self._number + 1)
        size = len(head) + len(entry.header) + len(entry.body)
        try:
            written = os.writev(self._file.fileno(), [head, entry.header, entry.body])
            if written < size:
                rest = b"".join([head, entry.header, entry.body])
                while written < size:
                    written += os.write(self._file.fileno(), rest[written:])
            if self._sync:
                _sync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._end)
            raise DataFileError(
                f"{self.path}: cannot be written: {error.strerror}; "
                "the request was not executed, start again when there is room"
            ) from error
        self._end += size
        self._number += 1

    def replay(self) -> Iterator[Entry]:
        """All entries in order; afterwards the file is ready for `append`.

        A half-written last entry is cut off (see `truncated`). If intact entries follow a damaged
        one, raises DataFileError and does not touch the file: cutting there would lose requests
        that were acknowledged.
        """
        end = self.size()
        with self.path.open("rb") as file:
            file.seek(BLOCK_SIZE)
            while self._end < end:
                entry = self._read(file)
                if entry is None:
                    break
                yield entry
        if self._end < end:
            self._refuse_damage(end)
            os.ftruncate(self._file.fileno(), self._end)
            self.truncated = (self._end, end - self._end)
        self._file.seek(self._end)

    def _read(self, file: BinaryIO) -> Entry | None:
        """The next entry, or None when it is not whole."""
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        found, magic, kind, size, _, timestamp, number = _HEAD.unpack(head)
        if magic != _ENTRY_MAGIC or number != self._number + 1 or not _size_valid(kind, size):
            return None
        message = file.read(size)
        if len(message) < size or checksum(head[16:] + message[:16]) != found:
            return None
        header, body = message[:HEADER_SIZE], memoryview(message)[HEADER_SIZE:]
        intact = checksum(header[16:]) == header[:16] and checksum(body) == header[32:48]
        if size and not intact:
            return None
        self._end += _HEAD.size + size
        self._number = number
        return Entry(kind, timestamp, header, body)

    def _refuse_damage(self, end: int) -> None:
        """Raise if anything behind the first damaged entry is an intact head of a later one."""
        with self.path.open("rb") as file:
            file.seek(self._end)
            tail = file.read(end - self._end)
        for magic in re.finditer(_ENTRY_MAGIC, tail):
            start = magic.start() - 16
            if not 0 < start <= len(tail) - _HEAD.size:
                continue
            found, _, kind, size, _, _, number = _HEAD.unpack_from(tail, start)
            covered = tail[start + 16 : start + _HEAD.size + min(size, 16)]
            is_later = number > self._number + 1 and _size_valid(kind, size)
            if is_later and checksum(covered) == found:
                raise DataFileError(
                    f"{self.path}: damaged at byte {self._end}, with intact entries behind it "
                    f"(number {number}); nothing was changed, restore it from a backup"
                )


def _size_valid(kind: int, size: int) -> bool:
    if kind == PULSE:
        return size == 0
    return kind == REQUEST and HEADER_SIZE <= size <= HEADER_SIZE + BODY_SIZE_MAX


def _pack_head(entry: Entry, number: int) -> bytes:
    size = len(entry.header) + len(entry.body)
    head = _HEAD.pack(bytes(16), _ENTRY_MAGIC, entry.kind, size, 0, entry.timestamp, number)
    return checksum(head[16:] + entry.header[:16]) + head[16:]
