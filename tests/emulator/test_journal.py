"""The data file: what survives, what is cut off, what is refused."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from tests.emulator import raw, records, servers
from tigerbeetle_emulator.server.journal import (
    BLOCK_SIZE,
    DataFileError,
    FileJournal,
    Identity,
    format_file,
)
from tigerbeetle_emulator.server.replica import PULSE, RELEASE_NUMBER, REQUEST, Entry

_IDENTITY = Identity(7, 0, 1, RELEASE_NUMBER)


def _request(number: int, size: int = 0) -> Entry:
    message = raw.message(bytes([number % 251]) * size, command=5, client=1, request=number)
    return Entry(REQUEST, 1000 + number, message[:256], message[256:])


def _journal(path: Path, entries: list[Entry]) -> list[int]:
    """A data file with these entries; where each of them ends."""
    format_file(path, _IDENTITY)
    journal = FileJournal(path)
    assert list(journal.replay()) == []
    ends = []
    for entry in entries:
        journal.append(entry)
        ends.append(journal.size())
    journal.close()
    return ends


def _replayed(path: Path) -> tuple[list[Entry], FileJournal]:
    journal = FileJournal(path)
    return list(journal.replay()), journal


_ENTRIES = [_request(1), _request(2, 100_000), Entry(PULSE, 5000, b"", b""), _request(3, 128)]


def test_what_was_appended_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    _journal(path, _ENTRIES)
    found, journal = _replayed(path)
    assert found == _ENTRIES
    assert journal.truncated is None
    journal.append(_request(4, 5))
    journal.close()
    again, journal = _replayed(path)
    assert again == [*_ENTRIES, _request(4, 5)]
    journal.close()


def test_a_data_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data"
    _journal(path, [])
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("missing", [1, 47, 48, 49, 100, 303])
def test_a_torn_tail_is_truncated(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "data"
    ends = _journal(path, [*_ENTRIES[:2], _request(3)])
    os.truncate(path, ends[2] - missing)
    found, journal = _replayed(path)
    assert found == _ENTRIES[:2]
    assert journal.truncated == (ends[1], ends[2] - ends[1] - missing)
    assert path.stat().st_size == ends[1]
    journal.append(_request(3))
    journal.close()
    assert len(_replayed(path)[0]) == 3


@pytest.mark.parametrize("garbage", [b"\0" * 5000, b"\xff" * 48, b"tbe1" * 300])
def test_garbage_behind_the_last_entry_is_truncated(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "data"
    ends = _journal(path, _ENTRIES)
    with path.open("ab") as file:
        file.write(garbage)
    found, journal = _replayed(path)
    journal.close()
    assert found == _ENTRIES
    assert path.stat().st_size == ends[-1]


@pytest.mark.parametrize("offset", [0, 20, 30, 60, 300, 5000])
def test_damage_before_intact_entries_is_refused_and_left_alone(
    tmp_path: Path, offset: int
) -> None:
    path = tmp_path / "data"
    ends = _journal(path, _ENTRIES)
    data = bytearray(path.read_bytes())
    data[ends[0] + offset] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataFileError, match=f"damaged at byte {ends[0]}, with intact entries"):
        _replayed(path)
    assert path.read_bytes() == data


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(DataFileError, match="not an emulator data file"):
        FileJournal(path)
    assert path.read_bytes() == bytes(1 << 20)


def test_a_path_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"^[^\n]*: cannot be read: Is a directory$"):
        FileJournal(tmp_path)


def test_a_damaged_first_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    _journal(path, _ENTRIES)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataFileError, match="first block is damaged"):
        FileJournal(path)


def test_a_missing_file_says_how_to_create_it(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="create it with `format`"):
        FileJournal(tmp_path / "data")


def test_an_existing_file_is_never_formatted(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        format_file(path, _IDENTITY)
    assert path.read_bytes() == b"precious"


def test_a_second_process_is_refused(emulator_process: servers.ServerProcess) -> None:
    done = subprocess.run(
        [
            *servers.EMULATOR,
            "start",
            f"--addresses={servers.free_port()}",
            str(emulator_process.path),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "another process holds the data file lock" in done.stderr


def _create_accounts(client: raw.RawClient, first: int, count: int = 100) -> None:
    accounts = (records.pack(records.ACCOUNT, id=first + n, ledger=1, code=1) for n in range(count))
    client.batches(records.CREATE_ACCOUNTS, [b"".join(accounts)])


def _create_until_closed(client: raw.RawClient) -> int:
    """Create accounts until the server goes away; how many were acknowledged."""
    for first in range(1, 1000, 100):
        try:
            _create_accounts(client, first)
        except raw.Closed:
            return first - 1
    raise AssertionError("the disk never filled")


def test_a_full_disk_stops_the_server_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    server = servers.ServerProcess(servers.EMULATOR, tmp_path)
    server.start()
    try:
        # A file that may not grow fails a write as a full disk does, in the middle of an entry.
        limit = BLOCK_SIZE + 60_000
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, limit))
        with raw.RawClient(server.ports[0]) as client:
            client.register()
            acknowledged = _create_until_closed(client)
            assert server.process is not None
            assert server.process.wait(10) == 1
            assert "cannot be written" in server.log
            assert 0 < acknowledged < 1000
            assert server.path.stat().st_size < limit
            server.start()
            client.reconnect()
            # The same request, sent again as a client would, is executed now.
            _create_accounts(client, acknowledged + 1)
            body = b"".join(records.pack(records.ID, id=n) for n in range(1, acknowledged + 201))
            found = client.batches(records.LOOKUP_ACCOUNTS, [body]).body
            assert len(found) // 128 - 1 == acknowledged + 100
    finally:
        server.stop()


def test_a_torn_tail_is_truncated_with_a_warning_when_started(tmp_path: Path) -> None:
    server = servers.ServerProcess(servers.EMULATOR, tmp_path)
    server.start()
    with raw.RawClient(server.ports[0]) as client:
        client.register()
        _create_accounts(client, 1)
        _create_accounts(client, 101)
    server.kill()
    os.truncate(server.path, server.path.stat().st_size - 10)
    try:
        server.start()
        assert "torn tail" in server.log
        assert "replayed 2 steps" in server.log
    finally:
        server.stop()


@pytest.mark.parametrize("sync", ["never", "every-request"])
def test_every_choice_of_sync_survives_a_kill(tmp_path: Path, sync: str) -> None:
    with servers.emulator(tmp_path, f"--sync={sync}") as server:
        assert f"sync={sync}" in server.log
        with raw.RawClient(server.ports[0]) as client:
            client.register()
            _create_accounts(client, 1)
            server.kill()
            server.start()
            client.reconnect()
            body = b"".join(records.pack(records.ID, id=n) for n in range(1, 101))
            answer = client.batches(records.LOOKUP_ACCOUNTS, [body])
        assert len(raw.split_batches(answer.body, 128)[0]) == 100 * 128


def test_a_long_replay_shows_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tigerbeetle_emulator import __main__ as main
    from tigerbeetle_emulator.server.replica import Replica

    caplog.set_level("INFO", "tigerbeetle_emulator")
    monkeypatch.setattr(main, "REPLAY_PROGRESS", 0.0)
    path = tmp_path / "data"
    _journal(path, [Entry(PULSE, time.time_ns() + n, b"", b"") for n in range(5)])
    journal = FileJournal(path)
    main.replay(Replica(7), journal)
    journal.close()
    lines = [record.getMessage() for record in caplog.records]
    assert "0: replaying: 3 steps so far" in lines
    assert lines[-1].startswith("0: replayed 5 steps")
