"""TigerBeetle's lines are understood, and nothing that arrives stops the collector."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from monitoring.collector import datagram
from monitoring.collector.datagram import Sample
from monitoring.collector.series import Series

RECORDED = (Path(__file__).parent / "fixtures" / "datagrams.txt").read_bytes()
CLUSTER = "0" * 32
FUZZED = 100_000


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (
            b"tb.replica_status:0|g|#cluster:" + CLUSTER.encode() + b",replica:2",
            Sample("tb.replica_status", 0, "g", (("cluster", CLUSTER), ("replica", "2"))),
        ),
        (
            b"tb.replica_request_us.sum:1457|c|#cluster:c,replica:0,operation:Operation.pulse",
            Sample(
                "tb.replica_request_us.sum",
                1457,
                "c",
                (("cluster", "c"), ("replica", "0"), ("operation", "Operation.pulse")),
            ),
        ),
        (b"x:1.5|g", Sample("x", 1.5, "g", ())),
        (b"x:-3|g", Sample("x", -3, "g", (), is_relative=True)),
        (b"x:18446744073709551615|g", Sample("x", float(2**64), "g", ())),
    ],
)
def test_a_line_is_read(line: bytes, sample: Sample) -> None:
    assert list(datagram.parse(line)) == [sample]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no colon", "malformed_line"),
        (b":1|g", "malformed_line"),
        (b"x:1", "malformed_line"),
        (b"x:1|g|@0.5", "malformed_line"),
        (b"x:1|g|", "malformed_line"),
        (b"\xff\xfe:1|g", "malformed_line"),
        (b"x:|g", "malformed_value"),
        (b"x:nan|g", "malformed_value"),
        (b"x:inf|g", "malformed_value"),
        (b"x:1e999|g", "malformed_value"),
        (b"x:-1|c", "malformed_value"),
        (b"x:1|ms", "unsupported_type"),
        (b"x:1|", "unsupported_type"),
        (b"x:1|g|#", "malformed_tags"),
        (b"x:1|g|#a", "malformed_tags"),
        (b"x:1|g|#:b", "malformed_tags"),
        (b"x:1|g|#a:b,", "malformed_tags"),
    ],
)
def test_a_bad_line_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    assert list(datagram.parse(line)) == [reason]


def test_a_bad_line_does_not_spoil_its_neighbours() -> None:
    parsed = list(datagram.parse(b"a:1|g\nnonsense\nb:2|g\n"))
    assert [p if isinstance(p, str) else p.name for p in parsed] == ["a", "malformed_line", "b"]


def test_every_recorded_line_is_understood() -> None:
    series = Series()
    series.receive(RECORDED, 0.0)
    assert series.rejected == {}
    assert series.samples == len(RECORDED.splitlines()) > 100


def test_a_hundred_thousand_fuzzed_datagrams_are_survived_and_counted() -> None:
    dice = random.Random(7)
    lines = RECORDED.splitlines()
    series = Series()
    for _ in range(FUZZED):
        data = bytearray(dice.choice(lines) if dice.random() < 0.8 else dice.randbytes(80))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        series.receive(bytes(data), 0.0)
    assert series.datagrams == FUZZED
    assert series.samples > 1000 and sum(series.rejected.values()) > 1000
    before = series.samples
    series.receive(RECORDED, 0.0)
    assert series.samples == before + len(lines)
