"""A backup whose files are whole by every sum, and whose ledger is not what was acknowledged.

Made of an honest one of the emulator: one transfer in its journal is changed, the journal's own
checksums are made right again, and so are the manifest's. No check but one that knows what was
acknowledged can tell.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tigerbeetle_emulator.protocol.aegis import checksum
from tigerbeetle_emulator.server.journal import FileJournal, _pack_head
from tigerbeetle_emulator.server.replica import Entry

#: A transfer's fields: offset and size.
AMOUNT, LEDGER = (48, 16), (112, 4)
_TRANSFER = 128


def forge(taken: Path, target: Path, transfer: int, field: tuple[int, int], value: int) -> Path:
    """A copy of the set in which the transfer was asked for with another value."""
    shutil.copytree(taken, target)
    (packed,) = target.glob("replica-0.*")
    data = target / "replica-0"
    tool = {".zst": "zstd", ".gz": "gzip"}[packed.suffix]
    _piped([tool, "-q", "-d", "-c"], packed, data)
    _change(data, transfer, field, value)
    _piped([tool, "-q", "-c"], data, packed)
    size = data.stat().st_size
    data.unlink()
    changed = {"size": packed.stat().st_size, "data_size": size, "sha256": _sha256(packed)}

    def of_replica_0(manifest: dict[str, Any]) -> None:
        manifest["files"][0] |= changed

    rewrite(target, of_replica_0)
    return target


def rewrite(target: Path, change: Any) -> None:
    """Change the manifest; its totals go, as where they could not be read."""
    file = target / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest |= {"before": None, "after": None}
    change(manifest)
    file.write_text(json.dumps(manifest))


def _change(data: Path, transfer: int, field: tuple[int, int], value: int) -> None:
    journal = FileJournal(data)
    entries = list(journal.replay())
    journal.close()
    identity = data.read_bytes()[:4096]
    wanted, found = transfer.to_bytes(16, "little"), 0
    with data.open("wb") as file:
        file.write(identity)
        for number, entry in enumerate(entries, 1):
            body = bytearray(entry.body)
            at = body.find(wanted)
            if at >= 0 and at % _TRANSFER == 0 and len(body) >= _TRANSFER:
                offset, size = field
                body[at + offset : at + offset + size] = value.to_bytes(size, "little")
                found += 1
            changed = Entry(entry.kind, entry.timestamp, _summed(entry.header, body), bytes(body))
            file.write(_pack_head(changed, number) + changed.header + changed.body)
    assert found == 1, f"the transfer was asked for {found} times"


def _summed(header: bytes, body: bytearray) -> bytes:
    if not header:
        return header
    made = bytearray(header)
    made[32:48] = checksum(bytes(body))
    made[0:16] = checksum(bytes(made[16:]))
    return bytes(made)


def _piped(command: list[str], source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        subprocess.run(command, stdin=reading, stdout=writing, check=True, timeout=60)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
