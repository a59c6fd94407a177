"""A forked child next to the server: it may live as long as it likes, and disturbs nothing."""

from __future__ import annotations

import concurrent.futures
import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tigerbeetle_emulator
from tests.emulator import raw, records
from tests.emulator.book import Book, port_of
from tests.emulator.native import NativeClient
from tests.emulator.raw import RawClient
from tigerbeetle_emulator import Emulator
from tigerbeetle_emulator.server.journal import DataFileError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # Python 3.12 warns of any fork beside threads; that it does no harm is the subject here.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]
_ONE = records.pack(records.ID, id=1)


def _sleep_for_ever() -> None:
    while True:
        time.sleep(60)


def _forked(what: Callable[[], None]) -> int:
    """A child by Python's own fork; its exit code says whether it raised."""
    child = os.fork()
    if not child:
        try:
            what()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def _forked_by_native_code(what: Callable[[], None]) -> int:
    """A child of which Python knows nothing: no handler has run in it."""
    child = int(ctypes.CDLL(None).fork())
    if not child:
        what()
        os._exit(0)
    return child


Fork = Callable[[Callable[[], None]], int]


@pytest.fixture(params=[_forked, _forked_by_native_code], ids=["python", "native"])
def child_that_stays(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Forks a child that lives until the test ends."""
    children = []
    fork: Fork = request.param
    yield lambda: children.append(fork(_sleep_for_ever))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_stop_disconnects_and_a_start_listens_while_a_child_lives(
    child_that_stays: Callable[[], None],
) -> None:
    with tigerbeetle_emulator.run(replicas=2) as cluster, RawClient(port_of(cluster)) as client:
        client.register()
        child_that_stays()
        address = cluster.address
        cluster.stop()
        with pytest.raises(raw.Closed):
            client.receive()
        with pytest.raises(OSError, match="refused"):
            client.reconnect()
        cluster.start()
        assert cluster.address == address
        client.reconnect()
        client.request(records.LOOKUP_ACCOUNTS, raw.multi_batch(records.LOOKUP_ACCOUNTS, [_ONE]))


def test_the_official_client_comes_back_after_a_stop_while_a_child_lives(
    child_that_stays: Callable[[], None],
) -> None:
    with (
        tigerbeetle_emulator.run() as cluster,
        NativeClient(cluster.cluster_id, cluster.address) as client,
    ):
        client.request(records.LOOKUP_ACCOUNTS, _ONE)
        child_that_stays()
        cluster.stop()
        cluster.start()
        client.request(records.LOOKUP_ACCOUNTS, _ONE)


def test_a_data_file_is_free_again_while_a_child_lives(
    child_that_stays: Callable[[], None], tmp_path: Path
) -> None:
    with tigerbeetle_emulator.run(path=tmp_path / "data") as cluster, Book(cluster) as book:
        book.open()
        child_that_stays()
    with tigerbeetle_emulator.run(path=tmp_path / "data") as cluster, Book(cluster) as book:
        assert len(book.accounts()) == 2


def test_a_child_that_leaves_the_block_leaves_the_server_and_its_file_alone(tmp_path: Path) -> None:
    class Left(Exception):  # noqa: N818 an outcome, no failure
        pass

    child = 0
    try:
        with tigerbeetle_emulator.run(path=tmp_path / "data") as cluster:
            with Book(cluster) as book:
                book.open()
            child = os.fork()
            if not child:
                raise Left
            assert _ended(child) == 0
            with Book(cluster) as book:
                assert len(book.accounts()) == 2
            with (
                pytest.raises(DataFileError, match="lock"),
                tigerbeetle_emulator.run(path=tmp_path / "data"),
            ):
                pass
    except Left:
        os._exit(0)


def _refused_in_a_child(cluster: Emulator) -> None:
    for method in (cluster.start, cluster.stop, cluster.reset, cluster.snapshot):
        with pytest.raises(RuntimeError, match=rf"serves in process {os.getppid()}"):
            method()
    with pytest.raises(RuntimeError, match="can be its client"):
        cluster.advance(1)


def test_a_child_cannot_steer_its_parents_server() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        assert _ended(_forked(lambda: _refused_in_a_child(cluster))) == 0
        assert len(book.accounts()) == 2


def test_a_child_may_have_a_server_of_its_own() -> None:
    def serve() -> None:
        with tigerbeetle_emulator.run() as own, Book(own) as book:
            assert book.open() == [records.CREATED] * 2

    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        assert _ended(_forked(serve)) == 0
        assert book.accounts() == []


def _pay(address: str, number: int) -> int:
    """By a client of a worker's own."""
    with RawClient(int(address.rpartition(":")[2])) as client:
        client.register()
        accounts = {"debit_account_id": 1, "credit_account_id": 2}
        record = records.pack(records.TRANSFER, id=number, **accounts, amount=1, ledger=1, code=1)
        answer = client.batches(records.CREATE_TRANSFERS, [record])
        return records.unpack(records.CREATE_RESULT, answer.body[:16])[0]["status"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_process_pool_share_the_ledger_and_survive_a_restart(method: str) -> None:
    context = multiprocessing.get_context(method)
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            paid = list(pool.map(_pay, [cluster.address] * 4, range(1, 5)))
            cluster.stop()
            cluster.start()
            paid += pool.map(_pay, [cluster.address] * 4, range(5, 9))
            cluster.stop()
            cluster.start()
        book.reconnect()
        assert paid == [records.CREATED] * 8
        assert book.accounts()[0]["debits_posted"] == 8
