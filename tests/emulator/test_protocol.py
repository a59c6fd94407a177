"""Requests right and wrong, over a socket: what is answered, dropped, evicted, closed.

Every probe runs against the emulator and, where there is one, against the genuine server, whose
answer is the expected one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.emulator import raw, records, servers
from tests.emulator.raw import NOOP, PING_CLIENT, REGISTER, RawClient

_LOOKUP = records.LOOKUP_ACCOUNTS
_BODY = raw.multi_batch(_LOOKUP, [records.pack(records.ID, id=1)])

Probe = Callable[[RawClient], "raw.Answer | None"]


def _filters(limit: int, count: int) -> bytes:
    body = records.pack(records.QUERY_FILTER, limit=limit)
    return raw.multi_batch(records.QUERY_TRANSFERS, [body] * count)


def _twice(client: RawClient, **fields: int) -> raw.Answer | None:
    """The same request again, as after a lost reply; optionally with a field changed."""
    before = client.parent, client.request_number
    client.request(_LOOKUP, _BODY)
    client.parent, client.request_number = before
    return client.ask(_LOOKUP, _BODY, **fields)


def _stranger(client: RawClient) -> RawClient:
    """A connection of somebody else: a server answers a client on the connection it knows."""
    other = RawClient(client.port)
    other.patience = client.patience
    client.others.append(other)
    return other


def _older(client: RawClient) -> raw.Answer | None:
    client.request(_LOOKUP, _BODY)
    client.request(_LOOKUP, _BODY)
    return client.ask(_LOOKUP, _BODY, request=1)


_ACCOUNT = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)

# name -> (probe of a registered client, outcome): "reply", "dropped", "closed" or the reason
PROBES: dict[str, tuple[Probe, str | int]] = {
    # A well-formed request and its repetitions.
    "a request": (lambda c: c.ask(_LOOKUP, _BODY), "reply"),
    "the same request again": (_twice, "reply"),
    "another request of the same number": (lambda c: _twice(c, latency=5), "dropped"),
    "an older request": (_older, "dropped"),
    "a request too early": (lambda c: c.ask(_LOOKUP, _BODY, request=2), "dropped"),
    "a wrong parent": (lambda c: c.ask(_LOOKUP, _BODY, parent=5), "dropped"),
    "a noop": (lambda c: c.ask(NOOP), "reply"),
    "a noop with a body": (lambda c: c.ask(NOOP, bytes(16)), "dropped"),
    # Sessions.
    "an unknown client": (lambda c: _stranger(c).ask(_LOOKUP, _BODY, session=1, request=1), 1),
    "a lower session": (lambda c: c.ask(_LOOKUP, _BODY, session=c.session - 1), 7),
    "a higher session": (lambda c: c.ask(_LOOKUP, _BODY, session=c.session + 1), "dropped"),
    "another release than registered": (lambda c: c.ask(_LOOKUP, _BODY, release=0x1108), 8),
    "session zero": (lambda c: c.ask(_LOOKUP, _BODY, session=0), "dropped"),
    "request zero": (lambda c: c.ask(_LOOKUP, _BODY, request=0), "dropped"),
    "a timestamp of its own": (lambda c: c.ask(_LOOKUP, _BODY, timestamp=5), "dropped"),
    # Releases.
    "a client too old": (lambda c: c.ask(_LOOKUP, _BODY, release=0x1003), 2),
    "a client too new": (lambda c: c.ask(_LOOKUP, _BODY, release=0x110000), 3),
    "release zero": (lambda c: c.ask(_LOOKUP, _BODY, release=0), "dropped"),
    "the oldest client registers": (
        lambda c: _stranger(c).ask(
            REGISTER, bytes(256), session=0, request=0, parent=0, release=0x1004
        ),
        "reply",
    ),
    # Registering.
    "registering again": (
        lambda c: c.ask(REGISTER, bytes(256), session=0, request=0, parent=0),
        "reply",
    ),
    "registering without a body": (
        lambda c: _stranger(c).ask(REGISTER, b"", session=0, request=0, parent=0),
        6,
    ),
    "registering with half a body": (
        lambda c: _stranger(c).ask(REGISTER, bytes(128), session=0, request=0, parent=0),
        "dropped",
    ),
    "registering with a session": (
        lambda c: _stranger(c).ask(REGISTER, bytes(256), session=1, request=0, parent=0),
        "dropped",
    ),
    "registering with a parent": (
        lambda c: _stranger(c).ask(REGISTER, bytes(256), session=0, request=0, parent=1),
        "dropped",
    ),
    "registering with a request number": (
        lambda c: _stranger(c).ask(REGISTER, bytes(256), session=0, request=1, parent=0),
        "dropped",
    ),
    # Operations and bodies.
    "operation 0": (lambda c: c.ask(0), "dropped"),
    "operation 1": (lambda c: c.ask(1), "dropped"),
    "operation 7": (lambda c: c.ask(7), "dropped"),
    "operation 127": (lambda c: c.ask(127), "dropped"),
    "operation 148": (lambda c: c.ask(148, _BODY), 4),
    "operation 255": (lambda c: c.ask(255), 4),
    "no trailer": (lambda c: c.ask(_LOOKUP, b""), 5),
    "half an event": (lambda c: c.ask(_LOOKUP, bytes(8) + _BODY[16:]), 5),
    "a trailer of zeros": (lambda c: c.ask(_LOOKUP, bytes(32)), 5),
    "65535 batches": (lambda c: c.ask(_LOOKUP, _BODY[:-2] + b"\xff\xff"), 5),
    "padding that is not ff": (lambda c: c.ask(_LOOKUP, _BODY[:16] + b"\0" + _BODY[17:]), 5),
    "more events than said": (lambda c: c.ask(_LOOKUP, bytes(16) + _BODY), 5),
    "no batch at all in an empty request": (
        lambda c: c.ask(_LOOKUP, raw.multi_batch(_LOOKUP, [b""])),
        "reply",
    ),
    "two filters in a batch": (lambda c: c.ask(145, raw.multi_batch(145, [bytes(128)])), 5),
    "8190 accounts": (lambda c: c.ask(129, _ACCOUNT * 8190), "reply"),
    "8189 lookups": (
        lambda c: c.ask(_LOOKUP, raw.multi_batch(_LOOKUP, [bytes(16 * 8189)])),
        "reply",
    ),
    "8190 lookups": (lambda c: c.ask(_LOOKUP, raw.multi_batch(_LOOKUP, [bytes(16 * 8190)])), 5),
    "8190 lookups in two batches": (
        lambda c: c.ask(_LOOKUP, raw.multi_batch(_LOOKUP, [bytes(16 * 4095)] * 2)),
        5,
    ),
    "two queries of 4094": (lambda c: c.ask(145, _filters(4094, 2)), "reply"),
    "two queries of 4095": (lambda c: c.ask(145, _filters(4095, 2)), 5),
    "a query of any limit": (lambda c: c.ask(145, _filters(2**32 - 1, 1)), "reply"),
    "change events of any limit": (
        lambda c: c.ask(137, records.pack(records.CHANGE_EVENTS_FILTER, limit=2**32 - 1)),
        "reply",
    ),
    "change events without a filter": (lambda c: c.ask(137, b""), 5),
    # Headers that break a rule.
    "a newer view": (lambda c: c.ask(_LOOKUP, _BODY, view=1000), "dropped"),
    "an author that is a replica": (lambda c: c.ask(_LOOKUP, _BODY, replica=1), "dropped"),
    "an epoch": (lambda c: c.ask(_LOOKUP, _BODY, epoch=1), "dropped"),
    "another protocol": (lambda c: c.ask(_LOOKUP, _BODY, protocol=1), "dropped"),
    "a nonce": (lambda c: c.ask(_LOOKUP, _BODY, nonce=1), "dropped"),
    "reserved bytes of the frame": (lambda c: c.ask(_LOOKUP, _BODY, frame_reserved=1), "dropped"),
    "reserved bytes of the request": (lambda c: c.ask(_LOOKUP, _BODY, reserved=1), "dropped"),
    "padding of the parent": (lambda c: c.ask(_LOOKUP, _BODY, parent_padding=1), "dropped"),
    "padding of the operation": (lambda c: c.ask(_LOOKUP, _BODY, operation_padding=1), "dropped"),
    "padding of a checksum": (lambda c: c.ask(_LOOKUP, _BODY, checksum_padding=1), "dropped"),
    # Damage.
    "another cluster": (lambda c: c.ask(_LOOKUP, _BODY, cluster=12345), "closed"),
    "a size below a header": (lambda c: c.ask(_LOOKUP, b"", size=255), "closed"),
    "a size above a message": (lambda c: c.ask(_LOOKUP, b"", size=(1 << 20) + 1), "closed"),
    # Pings.
    "a ping": (lambda c: c.ping(), "pong"),
    "a ping before registering": (lambda c: _stranger(c).ping(ping_session=0), "pong"),
    "a ping of a lost session": (lambda c: _stranger(c).ping(ping_session=1), 1),
    "a ping of a later session": (lambda c: _stranger(c).ping(ping_session=2**40), "pong"),
    "a ping of a client too old": (lambda c: c.ping(release=0x1003), 2),
    "a ping of a client too new": (lambda c: c.ping(release=0x110000), 3),
    "a ping with a view": (lambda c: c.ping(view=1), "dropped"),
    "a ping with reserved bytes": (lambda c: c.ping(ping_reserved=1), "dropped"),
}


def _outcome(name: str, port: int, silence: float = raw.SILENCE_SECONDS) -> str | int:
    probe, expected = PROBES[name]
    with RawClient(port) as client:
        client.register()
        client.patience = silence if expected == "dropped" else raw.WAIT_SECONDS
        try:
            answer = probe(client)
        except raw.Closed:
            return "closed"
        if answer is None:
            return "dropped"
        if answer.command == raw.EVICTION:
            ids = [client.client, *(other.client for other in client.others)]
            assert answer.number(128, 16) in ids
            return answer.reason
        return {raw.REPLY: "reply", raw.PONG_CLIENT: "pong"}[answer.command]


@pytest.fixture(scope="module")
def emulator_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with servers.emulator(tmp_path_factory.mktemp("emulator")) as server:
        yield server.ports[0]


@pytest.mark.parametrize("name", PROBES)
def test_the_emulator_answers_a_probe(name: str, emulator_port: int) -> None:
    assert _outcome(name, emulator_port, 0.1) == PROBES[name][1]


@pytest.mark.genuine
@pytest.mark.parametrize("name", PROBES)
def test_the_genuine_server_answers_a_probe(
    name: str, genuine_server: servers.ServerProcess
) -> None:
    assert _outcome(name, genuine_server.ports[0]) == PROBES[name][1]


def test_damaged_bytes_close_the_connection(emulator_port: int) -> None:
    for position in (0, 100, 255, 256, 287):
        with RawClient(emulator_port) as client:
            client.register()
            data = bytearray(client.request_bytes(_LOOKUP, _BODY))
            data[position] ^= 1
            client.send(bytes(data))
            with pytest.raises(raw.Closed):
                client.receive()


def test_an_unknown_command_closes_the_connection(emulator_port: int) -> None:
    # The genuine server stops itself here, which no test of anything else would survive.
    for command in (12, 21, 25, 255):
        with RawClient(emulator_port) as client:
            client.send(raw.message(command=command))
            with pytest.raises(raw.Closed):
                client.receive()


def test_messages_of_replicas_are_dropped(emulator_port: int) -> None:
    for command in (0, 1, 2, 6, 7, 9, 10, 17, 20, 24):
        with RawClient(emulator_port) as client:
            client.register()
            client.send(raw.message(command=command))
            client.request(_LOOKUP, _BODY)


def test_the_internal_pulse_is_nobodys_business(emulator_port: int) -> None:
    with RawClient(emulator_port) as client:
        client.register()
        answer = client.ask(128)
        assert answer is not None
        assert answer.reason == 4


def test_messages_may_arrive_in_any_pieces(emulator_port: int) -> None:
    with RawClient(emulator_port) as client:
        client.register()
        data = client.request_bytes(_LOOKUP, _BODY)
        for start in range(0, len(data), 37):
            client.send(data[start : start + 37])
        assert client.receive() is not None
        ping = raw.message(command=PING_CLIENT, ping_client=client.client)
        client.send(ping + ping + ping[:100])
        assert client.receive() is not None
        assert client.receive() is not None
        client.send(ping[100:])
        assert client.receive() is not None


def test_a_pong_echoes_the_clock(emulator_port: int) -> None:
    with RawClient(emulator_port) as client:
        answer = client.ping(ping_monotonic=123456789)
        assert answer is not None
        assert answer.number(128, 8) == 123456789
        assert answer.header[115] == 0
