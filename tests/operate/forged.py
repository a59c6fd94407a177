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

from cluster.config.deployment import Deployment
from cluster.operate.backup import repository, restic
from cluster.operate.backup.sets import KeptFile, Manifest
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
    _piped([*_tool(packed), "-d"], packed, data)
    _change(data, transfer, field, value)
    _piped(_tool(packed), data, packed)
    size = data.stat().st_size
    data.unlink()
    changed = {"size": packed.stat().st_size, "data_size": size, "sha256": _sha256(packed)}

    def of_replica_0(manifest: dict[str, Any]) -> None:
        manifest["files"][0] |= changed

    rewrite(target, of_replica_0)
    return target


def send_away(taken: Path, deployment: Deployment) -> str:
    """Move the set into the deployment's repository; its name."""
    manifest = json.loads((taken / "manifest.json").read_text())
    for file in manifest["files"]:
        packed, index = taken / file["name"], file["replica"]
        data = taken / f"replica-{index}"
        _piped([*_tool(packed), "-d"], packed, data)
        with data.open("rb") as reading:
            subprocess.run(
                ["restic", *restic.put(deployment, taken.name, index)],
                stdin=reading,
                env=repository.environ(deployment),
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=300,
            )
    ids = repository.stored(deployment, taken.name)
    files = [
        {key: file[key] for key in KeptFile.model_fields} | {"snapshot": ids[file["replica"]]}
        for file in manifest["files"]
    ]
    repository.put(deployment, Manifest.model_validate(manifest | {"files": files}))
    shutil.rmtree(taken)
    return taken.name


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


def _tool(packed: Path) -> list[str]:
    return [{".zst": "zstd", ".gz": "gzip"}[packed.suffix], "-q", "-c"]


def _piped(command: list[str], source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        subprocess.run(command, stdin=reading, stdout=writing, check=True, timeout=60)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
