"""The bridge against a real server process: nothing blocks for ever, and nothing is mixed up."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from time import perf_counter

import gevent
import numpy as np
import pytest
import tigerbeetle as tb

from loadtests.client import bridge
from loadtests.client.bridge import BridgeError, NativeClient, Unanswered
from loadtests.client.ledger import Ledger
from loadtests.client.records import CREATED, EXISTS, LINKED, TRANSFER, join, pack_transfer
from loadtests.run.meter import Meter
from loadtests.run.runs import new_tag
from loadtests.wallet.bank import Bank
from loadtests.wallet.wallets import Choices, Population
from tests.load.conftest import CLUSTER_ID, Server

#: Where no answer will come; elsewhere, and against a hang, the bound.
DEADLINE_S, BOUND_S = 2.0, 60.0


def ledger_of(server: Server, deadline_s: float = DEADLINE_S, **more: object) -> Ledger:
    return Ledger(CLUSTER_ID, server.address, deadline_s=deadline_s, **more)  # type: ignore[arg-type]


@pytest.fixture
def ledger(server: Server) -> Iterator[Ledger]:
    made = ledger_of(server, BOUND_S)
    made.connect()
    yield made
    made.close()


@pytest.fixture
def bank(ledger: Ledger) -> Bank:
    population = Population(new_tag(), 0, 10)
    made = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
    made.open()
    return made


def payment(bank: Bank, number: int, amount: int = 1, flags: int = 0) -> bytes:
    population = bank.population
    return pack_transfer(
        number,
        population.tag,
        population.wallet(0, 0),
        population.wallet(1, 0),
        amount,
        ledger=978,
        code=12,
        user_data_64=population.tag,
        flags=flags,
    )


def test_greenlets_that_submit_together_share_packets_and_get_their_own_answers(
    server: Server,
) -> None:
    packets: list[int] = []
    ledger = ledger_of(
        server, on_transfers=lambda events, _r, _s: packets.append(len(events) // TRANSFER.itemsize)
    )
    ledger.connect()
    population = Population(new_tag(), 0, 10)
    bank = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
    bank.open()
    packets.clear()
    # Every third one asks for more than there is: its refusal must not reach a neighbour.
    asked = {n: 1 if n % 3 else 1 << 100 for n in range(1, 301)}
    calls = {
        n: gevent.spawn(ledger.create_transfers, payment(bank, 1000 + n, amount))
        for n, amount in asked.items()
    }
    gevent.joinall(list(calls.values()), timeout=BOUND_S)
    exceeds = int(tb.CreateTransferStatus.EXCEEDS_CREDITS)
    assert {n: call.value for n, call in calls.items()} == {
        n: [CREATED if n % 3 else exceeds] for n in asked
    }
    assert sum(packets) == 300
    assert len(packets) < 30
    ledger.close()


def test_a_chain_stays_whole_among_others(bank: Bank) -> None:
    first = payment(bank, 2001, flags=LINKED)
    chains = [
        gevent.spawn(bank.ledger.create_transfers, first + payment(bank, 2002, 1 << 100)),
        gevent.spawn(bank.ledger.create_transfers, payment(bank, 2003)),
    ]
    gevent.joinall(chains, timeout=BOUND_S)
    statuses = tb.CreateTransferStatus
    assert chains[0].value == [statuses.LINKED_EVENT_FAILED, statuses.EXCEEDS_CREDITS]
    assert chains[1].value == [CREATED]


def test_an_open_chain_is_refused_because_it_would_swallow_a_neighbour(bank: Bank) -> None:
    with pytest.raises(ValueError, match="end its chain"):
        bank.ledger.create_transfers(payment(bank, 3001, flags=LINKED))


@pytest.mark.parametrize("count", [0, 8190])
def test_a_batch_of_impossible_size_is_refused(ledger: Ledger, count: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        ledger.create_transfers(bytes(128 * count))


def test_the_same_id_again_says_exists(bank: Bank) -> None:
    event = payment(bank, 4001)
    assert bank.ledger.create_transfers(event) == [CREATED]
    assert bank.ledger.create_transfers(event) == [EXISTS]


def test_a_lookup_answers_each_id_and_none_for_a_stranger(bank: Bank) -> None:
    known = join(bank.population.wallet(3, 0)).to_bytes(16, "little")
    nobody = (123456).to_bytes(16, "little")
    found = bank.ledger.lookup_accounts(known + nobody + known)
    assert [account and account[:16] for account in found] == [known, None, known]


def test_the_official_client_reads_what_the_bridge_wrote(bank: Bank, server: Server) -> None:
    number = 5001
    bank.ledger.create_transfers(payment(bank, number, 42))
    with closing(tb.ClientSync(CLUSTER_ID, server.address)) as client:
        found = client.lookup_transfers([bank.population.tag << 64 | number])
    assert [(t.amount, t.ledger, t.user_data_64) for t in found] == [(42, 978, bank.population.tag)]


def test_a_frozen_server_ends_in_unknown_and_the_late_answer_is_recorded(
    own_server: Server,
) -> None:
    answers: list[int] = []
    ledger = ledger_of(
        own_server, on_transfers=lambda _e, results, _s: answers.extend(results["status"].tolist())
    )
    ledger.connect()
    population = Population(new_tag(), 0, 10)
    bank = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
    bank.open()
    answers.clear()
    own_server.freeze()
    with pytest.raises(Unanswered, match="no reply within 2 s"):
        ledger.create_transfers(payment(bank, 6001))
    assert len(ledger.unanswered) == TRANSFER.itemsize
    own_server.thaw()
    assert ledger.drain(BOUND_S)
    assert answers == [CREATED]
    assert ledger.create_transfers(payment(bank, 6001)) == [EXISTS]
    ledger.close()


def test_what_was_never_sent_is_never_sent_later(own_server: Server) -> None:
    ledger = ledger_of(own_server)
    ledger.connect()
    population = Population(new_tag(), 0, 10)
    bank = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
    bank.open()
    own_server.freeze()
    # The first is on the wire; the second waits behind it, and gives up there.
    calls = []
    for number in (7001, 7002):
        calls.append(gevent.spawn(_outcome, ledger, payment(bank, number)))
        while not ledger.unanswered:
            gevent.sleep(0)
    gevent.joinall(calls, timeout=BOUND_S)
    assert [type(call.value) for call in calls] == [Unanswered, Unanswered]
    own_server.thaw()
    assert ledger.drain(BOUND_S)
    ids = np.array([(n, population.tag) for n in (7001, 7002)], np.uint64)
    assert [int(t["id"][0]) for t in ledger.read_transfers(ids)] == [7001]
    ledger.close()


def _outcome(ledger: Ledger, event: bytes) -> object:
    try:
        return ledger.create_transfers(event)
    except (Unanswered, BridgeError) as error:
        return error


def test_a_killed_server_that_comes_back_is_served_on(own_server: Server) -> None:
    ledger = ledger_of(own_server)
    ledger.connect()
    population = Population(new_tag(), 0, 10)
    bank = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
    bank.open()
    own_server.kill()
    with pytest.raises(Unanswered):
        ledger.create_transfers(payment(bank, 8001))
    own_server.start()
    assert ledger.drain(BOUND_S)
    assert ledger.create_transfers(payment(bank, 8001)) == [EXISTS]
    ledger.close()


def test_a_killed_greenlet_leaves_the_others_served(bank: Bank) -> None:
    calls = [gevent.spawn(bank.ledger.create_transfers, payment(bank, 9000 + n)) for n in range(20)]
    gevent.sleep(0)
    gevent.killall(calls[::2])
    gevent.joinall(calls, timeout=BOUND_S)
    assert [call.value for call in calls[1::2]] == [[CREATED]] * 10


def test_closing_releases_who_waits_and_is_bounded(own_server: Server) -> None:
    ledger = ledger_of(own_server)
    ledger.connect()
    own_server.freeze()
    waiting = gevent.spawn(_outcome, ledger, bytes(128))
    while not ledger.unanswered:
        gevent.sleep(0)
    ledger.close()
    waiting.join(BOUND_S)
    assert isinstance(waiting.value, BridgeError)
    own_server.thaw()


def test_what_a_native_thread_may_still_call_outlives_a_close_that_ran_out_of_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = NativeClient(CLUSTER_ID, server.address)
    ended, deinit = threading.Event(), tb.tb_client_deinit

    def late(handle: object) -> None:
        ended.wait(BOUND_S)
        deinit(handle)

    monkeypatch.setattr(tb, "tb_client_deinit", late)
    monkeypatch.setattr(bridge, "CLOSE_TIMEOUT_S", 0.05)
    client.close()
    assert client in bridge._abandoned
    client._watcher.send()  # as its last callbacks do
    ended.set()


def test_a_closed_client_says_so(server: Server) -> None:
    ledger = ledger_of(server)
    ledger.connect()
    ledger.close()
    with pytest.raises(BridgeError, match="closed"):
        ledger.read_accounts(np.ones((1, 2), np.uint64))


def test_a_client_made_before_a_fork_refuses_to_serve_the_child(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = NativeClient(CLUSTER_ID, server.address)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(BridgeError, match="before a fork"):
            client.submit(tb.Operation.LOOKUP_ACCOUNTS, bytes(16), print)
    client.close()


@pytest.mark.parametrize("addresses", ["localhost:3000", "127.0.0.1:99999", "a,b"])
def test_addresses_that_are_none_are_refused_at_once(addresses: str) -> None:
    with pytest.raises(BridgeError, match="expected 1 to 6 of IP:PORT"):
        NativeClient(0, addresses)


def test_the_hub_turns_while_a_request_waits(own_server: Server) -> None:
    ledger = ledger_of(own_server)
    ledger.connect()
    own_server.freeze()
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.01)
            turns += 1

    turning = gevent.spawn(turn)
    with pytest.raises(Unanswered):
        ledger.read_accounts(np.ones((1, 2), np.uint64))
    turning.kill()
    assert turns > 2  # a hub that stood still would have turned once
    own_server.thaw()
    ledger.close()


def test_native_threads_never_enter_logging(server: Server) -> None:
    import logging

    threads: set[int] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threads.add(threading.get_ident())

    handler, logger = Handler(), logging.getLogger("tigerbeetle")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    ledger = Ledger(CLUSTER_ID, server.address)
    ledger.connect()
    ledger.close()
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    assert threads <= {threading.get_ident()}


# -- what a call has waited for ----------------------------------------------------------------

STALL_S = 0.5


def waits_of(ledger: Ledger, events: bytes) -> bridge.Waits:
    with suppress(Unanswered):
        ledger.create_transfers(events)
    return ledger.waits


def test_a_stall_is_the_packet_of_those_in_it_and_the_waiting_of_those_behind_it(
    own_server: Server,
) -> None:
    ledger = ledger_of(own_server, BOUND_S)
    with closing(ledger):
        ledger.connect()
        population = Population(new_tag(), 0, 10)
        bank = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
        bank.open()
        own_server.freeze()
        sent = gevent.spawn(waits_of, ledger, payment(bank, 9001))
        gevent.sleep(0.1)
        behind = [gevent.spawn(waits_of, ledger, payment(bank, 9002 + n)) for n in range(3)]
        gevent.sleep(STALL_S)
        own_server.thaw()
        gevent.joinall([sent, *behind], timeout=BOUND_S, raise_error=True)
    waiting, packet = sent.value
    assert packet >= STALL_S
    assert waiting < packet
    for waiting, packet in (one.value for one in behind):
        assert waiting >= STALL_S
        assert packet > 0


def test_what_is_never_answered_has_waited_until_its_deadline(own_server: Server) -> None:
    ledger = ledger_of(own_server, STALL_S)
    with closing(ledger):
        ledger.connect()
        population = Population(new_tag(), 0, 10)
        bank = Bank(ledger, population, Choices(population, skew=0, seed=1), Meter(0))
        bank.open()
        own_server.freeze()
        sent = gevent.spawn(waits_of, ledger, payment(bank, 9001))
        gevent.sleep(STALL_S / 2)
        behind = gevent.spawn(waits_of, ledger, payment(bank, 9002))
        gevent.joinall([sent, behind], timeout=BOUND_S, raise_error=True)
        with suppress(Unanswered):
            ledger.statement(population.wallet(0, 0), 10)
        asked = ledger.waits
        own_server.thaw()
    assert sent.value[0] < sent.value[1]
    assert behind.value[1] < behind.value[0]
    assert sum(sent.value) >= STALL_S
    assert sum(behind.value) >= STALL_S
    assert asked[0] == 0
    assert asked[1] >= STALL_S


def test_a_read_s_packet_is_all_of_its_waiting(bank: Bank) -> None:
    before = perf_counter()
    bank.ledger.statement(bank.population.wallet(0, 0), 10)
    waiting, packet = bank.ledger.waits
    assert waiting == 0
    assert 0 < packet <= perf_counter() - before
