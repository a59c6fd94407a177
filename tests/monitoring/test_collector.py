"""The collector as a process: datagrams in by UDP, metrics out by HTTP, whatever arrives."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from cluster import REPOSITORY
from tests.monitoring import receivers
from tests.monitoring.receivers import COLLECTOR, DATAGRAMS, FIXTURES, Receiver, in_datagrams


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receivers.collector() as running:
        yield running


def test_what_was_recorded_comes_out_under_the_recorded_names(collector: Receiver) -> None:
    collector.send(*in_datagrams(DATAGRAMS))
    collector.wait_for("tb_collector_samples_total", len(DATAGRAMS.splitlines()))
    scraped = set(re.findall(r"^(tb_\w+)\{", collector.scrape(), re.MULTILINE))
    recorded = set(re.findall(r"^(tb_\w+)\{", (FIXTURES / "scrape.prom").read_text(), re.MULTILINE))
    assert len(recorded) > 100
    assert recorded <= scraped


def test_labels_are_the_replica_s_words(collector: Receiver) -> None:
    collector.send(b"tb.replica_messages_in:7|g|#cluster:ab,replica:2,command:request\n")
    collector.wait_for('tb_replica_messages_in{cluster="ab",command="request",replica="2"}', 7)


def test_nonsense_is_counted_and_the_next_datagram_is_read(collector: Receiver) -> None:
    collector.send(b"", b"\x00" * 65_000, b"nonsense", b"x:1|ms", b"app.x:1|g|#cluster:c,replica:0")
    collector.send(b"tb.replica_view:3|g|#cluster:c,replica:0")
    collector.wait_for('tb_replica_view{cluster="c",replica="0"}', 3)
    assert collector.value('tb_collector_rejected_total{reason="malformed_line"}') == 2
    assert collector.value('tb_collector_rejected_total{reason="unsupported_type"}') == 1
    assert collector.value('tb_collector_rejected_total{reason="unknown_metric"}') == 1


def test_a_label_cannot_break_out_of_its_quotes(collector: Receiver) -> None:
    collector.send(b'tb.replica_view:3|g|#cluster:c"} 1\\,replica:0')
    collector.wait_for(r'tb_replica_view{cluster="c\"} 1\\",replica="0"}', 3)


def test_a_taken_address_is_one_clear_line_and_exit_code_2(collector: Receiver) -> None:
    done = subprocess.run(
        [*COLLECTOR, f"--statsd=127.0.0.1:{collector.statsd}", "--listen=127.0.0.1:0"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: expected .* to be free, found: .*\. Fix: .*\n", done.stderr)


@pytest.mark.parametrize(
    "address", ["8125", "127.0.0.1", "127.0.0.1:x", ":8125", "127.0.0.1:70000"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    done = subprocess.run(
        [*COLLECTOR, f"--statsd={address}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "--statsd" in done.stderr
