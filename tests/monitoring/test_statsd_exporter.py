"""The real statsd_exporter with our mapping file, and our collector: the same series from both.

That the two tables are equal is tests/monitoring/test_naming.py's; here the program that the
monitoring in Docker runs is asked itself. It is no package of Debian's, so it is often missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.tigerbeetle import waiting
from tests.monitoring import receivers
from tests.monitoring.receivers import DATAGRAMS, MAPPING, Receiver, in_datagrams

pytestmark = pytest.mark.skipif(
    receivers.STATSD_EXPORTER is None,
    reason="no statsd_exporter on PATH: its releases are on GitHub",
)
#: (name, labels) → value, of what comes from replicas. Not the TYPE, which queries do not know:
#: ours says that sum and count are one summary.
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
FOREIGN = b"app.requests:1|g|#cluster:c,replica:0\ntb.a.b.c:1|g|#cluster:c,replica:0\n"
PLANNED = b"tb.planned_stop:1|g|#cluster:c,replica:2\n"
SENT = [*in_datagrams(DATAGRAMS), FOREIGN, PLANNED]


def series(receiver: Receiver) -> Series:
    text = receiver.scrape()
    samples = re.findall(r"^(tb_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    return {
        (name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))): float(value)
        for name, labels, value in samples
        if not name.startswith("tb_collector_")
    }


def once_all_came(receiver: Receiver) -> Series:
    """After the last line was recorded: datagrams on loopback keep their order."""
    receiver.send(*SENT)
    receiver.wait_for('tb_planned_stop{cluster="c",replica="2"}', 1)
    return series(receiver)


@pytest.fixture(scope="module")
def theirs() -> Iterator[Receiver]:
    with receivers.statsd_exporter() as running:
        yield running


@pytest.fixture(scope="module")
def ours() -> Iterator[Series]:
    with receivers.collector() as running:
        yield once_all_came(running)


def test_what_replicas_have_sent_gives_the_same_series(theirs: Receiver, ours: Series) -> None:
    assert len(ours) == len(DATAGRAMS.splitlines()) + 1
    assert once_all_came(theirs) == ours


def test_what_is_not_tigerbeetle_s_is_dropped_and_counted(theirs: Receiver) -> None:
    dropped = 'statsd_exporter_events_actions_total{action="drop"}'
    before = theirs.value(dropped)
    theirs.send(FOREIGN, PLANNED)
    theirs.wait_for(dropped, (0 if before != before else before) + 2)
    assert not any(name.startswith(("app", "dropped")) for name, _ in series(theirs))


def test_nonsense_does_not_stop_it(theirs: Receiver) -> None:
    theirs.send(b"", b"\x00" * 60_000, b"nonsense", b"tb.replica_view:|g", b"tb.replica_view:x|g|#")
    theirs.send(b"tb.replica_view:41|g|#cluster:d,replica:0\n")
    theirs.wait_for('tb_replica_view{cluster="d",replica="0"}', 41)


def with_mapping(directory: Path, old: str, new: str) -> Path:
    """Our mapping file with a change."""
    text = MAPPING.read_text()
    assert old in text
    file = directory / "mapping.yml"
    file.write_text(text.replace(old, new))
    return file


def test_a_gauge_without_news_is_gone_and_a_counter_stays(tmp_path: Path) -> None:
    with receivers.statsd_exporter(with_mapping(tmp_path, "35s", "2s")) as hasty:
        hasty.send(
            b"tb.replica_view:1|g|#cluster:c,replica:0\n"
            b"tb.replica_request_us.sum:7|c|#cluster:c,replica:0\n"
        )
        hasty.wait_for('tb_replica_view{cluster="c",replica="0"}', 1)

        def observe() -> tuple[bool, str]:
            names = {name for name, _ in series(hasty)}
            return names == {"tb_replica_request_us_sum"}, str(names)

        waiting.wait_until(observe, what="only the counter to be left", timeout_s=150)


def test_a_mapping_that_differs_would_be_found(tmp_path: Path, ours: Series) -> None:
    with receivers.statsd_exporter(with_mapping(tmp_path, "_us_${2}", "_${2}")) as other:
        assert once_all_came(other) != ours
