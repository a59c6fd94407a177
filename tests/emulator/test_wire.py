"""Messages byte for byte: against vectors captured between the genuine client and server."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.emulator import raw, records
from tigerbeetle_emulator.protocol import aegis, multibatch, wire
from tigerbeetle_emulator.server.replica import Query, Replica

_VECTORS = [
    bytes.fromhex(line.partition(": ")[2])
    for line in (Path(__file__).parent / "vectors.txt").read_text().splitlines()
    if line.startswith(("hdr", "body"))
]
_MESSAGES = list(zip(_VECTORS[::2], _VECTORS[1::2], strict=True))
_CLUSTER = bytes(16)


@pytest.mark.parametrize("function", [aegis.checksum, aegis.checksum_pure])
def test_the_checksum_matches_the_published_vectors(function: object) -> None:
    assert callable(function)
    assert function(b"").hex() == "83cc600dc4e3e7e62d4055826174f149"
    assert function(bytes(16)).hex() == "f72ad48dd05dd1656133101cd4be3a26"


def test_the_pure_checksum_equals_the_compiled_one_on_every_length() -> None:
    if aegis.checksum is aegis.checksum_pure:
        pytest.skip("there is only the pure checksum: pip install aeg")
    for length in [*range(130), 240, 255, 256, 4096 + 5]:
        data = os.urandom(length)
        assert aegis.checksum_pure(data) == aegis.checksum(data), length
    assert aegis.checksum_pure(memoryview(bytearray(40))) == aegis.checksum(bytes(40))


@pytest.mark.parametrize(("header", "body"), _MESSAGES)
def test_a_captured_message_is_intact(header: bytes, body: bytes) -> None:
    frame = wire.read_frame(header, _CLUSTER)
    assert frame.size == 256 + len(body)
    assert frame.reserved_clear
    assert wire.body_intact(frame, body)
    assert not wire.body_intact(frame, body[:-1] + b"\x55")


@pytest.mark.parametrize("position", [0, 2])
def test_the_emulator_builds_the_captured_reply_headers(position: int) -> None:
    header, _ = _MESSAGES[position]
    expected, body = _MESSAGES[position + 1]
    request = wire.parse_request(wire.read_frame(header, _CLUSTER), header)
    assert request is not None
    view = int.from_bytes(expected[104:108], "little")
    author = wire.Author(_CLUSTER, view, expected[115], wire.release_number(wire.RELEASE))
    commit = int.from_bytes(expected[216:224], "little")
    timestamp = int.from_bytes(expected[224:232], "little")
    built, context = wire.build_reply(author, request, commit, timestamp, body)
    assert built == expected
    assert context == expected[160:176]


def test_a_reply_carries_the_release_of_its_request() -> None:
    header = raw.message(bytes(256), command=5, operation=2, client=7, release=0x1046, cluster=0)
    replica = Replica(0)
    frame = wire.read_frame(header[:256], _CLUSTER)
    answer = replica.receive(frame, header[:256], header[256:], 10**18)
    assert not isinstance(answer, Query)
    reply, _ = answer
    assert int.from_bytes(bytes(reply[108:112]), "little") == 0x1046


@pytest.mark.parametrize("position", [0, 15, 16, 40, 96, 200, 255])
def test_a_flipped_bit_damages_a_header(position: int) -> None:
    header = bytearray(raw.message(command=3, ping_client=1))
    header[position] ^= 1
    with pytest.raises(wire.DamagedError, match="header checksum"):
        wire.read_frame(header, _CLUSTER)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": 255}, "size"),
        ({"size": (1 << 20) + 1}, "size"),
        ({"cluster": 1}, "cluster"),
        ({"command": 12}, "command"),
        ({"command": 25}, "command"),
        ({"command": 255}, "command"),
    ],
)
def test_a_well_summed_header_can_still_be_damaged(fields: dict[str, int], reason: str) -> None:
    with pytest.raises(wire.DamagedError, match=reason):
        wire.read_frame(raw.message(b"", **({"command": 3} | fields)), _CLUSTER)


@pytest.mark.parametrize("size", [8, 16, 64, 128])
def test_batches_survive_encoding_and_decoding(size: int) -> None:
    generator = random.Random(size)
    for _ in range(50):
        batches = [
            generator.randbytes(size * generator.choice([0, 0, 1, 2, 7]))
            for _ in range(generator.randint(1, 40))
        ]
        body = multibatch.encode(batches, size)
        assert body == b"".join(batches) + records.trailer((len(b) // size for b in batches), size)
        assert [bytes(batch) for batch in multibatch.decode(body, size)] == batches


def test_the_documented_example_of_three_batches() -> None:
    ids = [number.to_bytes(16, "little") for number in (1, 2, 3)]
    body = multibatch.encode([ids[0] + ids[1], b"", ids[2]], 16)
    assert body[48:].hex() == "ffffffffffffffff0100000002000300"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(8),
        bytes(16),
        b"\xff" * 16,
        b"\xff" * 12 + bytes.fromhex("00000000"),  # no batch
        b"\xff" * 12 + bytes.fromhex("0000ffff"),  # 65535 batches
        b"\xff" * 11 + b"\xfe" + bytes.fromhex("00000100"),  # padding
        b"\xff" * 12 + bytes.fromhex("01000100"),  # an element that is not there
        bytes(16) + b"\xff" * 12 + bytes.fromhex("00000100"),  # one too many
        b"\xff" * 12 + bytes.fromhex("00000900"),  # nine counts need a longer trailer
        bytes(3) + b"\xff" * 12 + bytes.fromhex("00000100"),
    ],
)
def test_a_malformed_trailer_is_recognised(body: bytes) -> None:
    with pytest.raises(multibatch.TrailerError):
        multibatch.decode(body, 16)
