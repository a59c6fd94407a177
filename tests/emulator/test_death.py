"""A server thread that died: told at once, raised at the next use, brought back by `start`."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tigerbeetle_emulator
from tests.emulator import raw, records
from tests.emulator.raw import RawClient
from tests.emulator.watched import eventually, warned
from tigerbeetle_emulator.server.journal import DataFileError
from tigerbeetle_emulator.server.server import Server

_LOOKUP = raw.multi_batch(records.LOOKUP_ACCOUNTS, [records.pack(records.ID, id=1)])
_ACCOUNT = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)


@pytest.fixture
def cluster() -> Iterator[tigerbeetle_emulator.Emulator]:
    with tigerbeetle_emulator.run() as emulator:
        yield emulator


def _port(cluster: tigerbeetle_emulator.Emulator) -> int:
    return int(cluster.address.split(",")[0].rpartition(":")[2])


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the next message end the server, as an error of the emulator's own would."""

    def breaks(*_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError("a mistake in the emulator")

    return lambda: monkeypatch.setattr(Server, "_on_message", breaks)


def _end(cluster: tigerbeetle_emulator.Emulator, broken: Callable[[], None]) -> None:
    """Let it die of the next message."""
    port = _port(cluster)
    broken()
    with RawClient(port) as client, pytest.raises(raw.Closed):
        client.register()


_USES: dict[str, Callable[[tigerbeetle_emulator.Emulator], object]] = {
    "address": lambda cluster: cluster.address,
    "cluster_id": lambda cluster: cluster.cluster_id,
    "faults": lambda cluster: cluster.faults,
    "new faults": lambda cluster: setattr(cluster, "faults", tigerbeetle_emulator.Faults()),
    "stop": lambda cluster: cluster.stop(),
}


@pytest.mark.parametrize("use", _USES)
def test_the_next_use_raises_what_ended_the_server(use: str, broken: Callable[[], None]) -> None:
    with tigerbeetle_emulator.run() as cluster:
        _end(cluster, broken)
        for _ in range(2):
            with pytest.raises(tigerbeetle_emulator.EmulatorDiedError, match="a mistake") as found:
                _USES[use](cluster)
            assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_the_end_of_a_test_raises_what_nothing_has_raised_before(
    broken: Callable[[], None],
) -> None:
    with (
        pytest.raises(tigerbeetle_emulator.EmulatorDiedError, match="ZeroDivisionError"),
        tigerbeetle_emulator.run() as cluster,
    ):
        _end(cluster, broken)


def test_a_death_is_logged_with_its_traceback_when_it_happens(
    broken: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    with tigerbeetle_emulator.run() as cluster:
        _end(cluster, broken)
        eventually(lambda: warned(caplog, "its clients wait for ever") != [])
        (record,) = (each for each in caplog.records if each.exc_info)
        assert record.levelno == logging.ERROR
        assert record.exc_info
        assert record.exc_info[0] is ZeroDivisionError
        cluster.start()


def test_a_start_brings_a_dead_emulator_back_with_ledger_sessions_and_port(
    broken: Callable[[], None],
) -> None:
    with tigerbeetle_emulator.run() as cluster, RawClient(_port(cluster)) as client:
        client.register()
        client.batches(records.CREATE_ACCOUNTS, [_ACCOUNT])
        before = cluster.address
        _end(cluster, broken)
        cluster.start()
        assert cluster.address == before
        client.reconnect()
        answer = client.request(records.LOOKUP_ACCOUNTS, _LOOKUP)
        assert raw.split_batches(answer.body, 128)[0][:16] == _ACCOUNT[:16]
        assert [each.name for each in threading.enumerate()].count("tigerbeetle-emulator") == 1


def test_a_full_disk_is_the_cause_that_the_test_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        tigerbeetle_emulator.run(path=tmp_path / "data") as cluster,
        RawClient(_port(cluster)) as client,
    ):
        client.register()
        monkeypatch.setattr(os, "writev", full)
        with pytest.raises(raw.Closed):
            client.ask(records.CREATE_ACCOUNTS, raw.multi_batch(146, [_ACCOUNT]))
        monkeypatch.undo()
        with pytest.raises(tigerbeetle_emulator.EmulatorDiedError) as found:
            cluster.stop()
        assert isinstance(found.value.__cause__, DataFileError)
        assert "No space left" in str(found.value)
        cluster.start()
        client.reconnect()
        client.batches(records.CREATE_ACCOUNTS, [_ACCOUNT])


def test_a_port_taken_while_it_was_away_on_request_is_the_cause(
    cluster: tigerbeetle_emulator.Emulator,
) -> None:
    port = _port(cluster)
    cluster.faults = tigerbeetle_emulator.Faults(stop_every=0.01, stop_for=0.5)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def take() -> bool:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True

        eventually(take)
        taken.listen()

        def dead() -> bool:
            try:
                return cluster.cluster_id != 0
            except tigerbeetle_emulator.EmulatorDiedError as error:
                return isinstance(error.__cause__, OSError)

        eventually(dead)
    cluster.start()
