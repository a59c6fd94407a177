"""The collector as a process: datagrams in by UDP, metrics out by HTTP, whatever arrives."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


def test_what_is_kept_in_files_is_there_from_the_first_scrape_on_and_after_a_restart(
    tmp_path: Path,
) -> None:
    metric = 'wallet_service_backup_late_after_seconds{cluster="c",operator="%s"}'
    for operator in ("a", "b"):  # two machines: one family, as Prometheus wants it
        text = f"# TYPE wallet_service_backup_late_after_seconds gauge\n{metric % operator} 5.5\n"
        (tmp_path / f"{operator}.prom").write_text(text)
    (tmp_path / "c.prom").write_text("not a metric\n")
    (tmp_path / "d.prom.tmp").write_text(metric % "d" + " 1\n")
    for _ in range(2):
        with receivers.collector(f"--textfiles={tmp_path}") as running:
            assert running.value(metric % "a") == running.value(metric % "b") == 5.5
            assert running.value("tb_collector_textfiles_unread") == 1
            assert running.scrape().count("# TYPE wallet_service_backup_late_after_seconds") == 1
            assert metric % "d" not in running.scrape()


def test_a_file_is_read_anew_at_every_scrape_and_a_directory_need_not_be_there(
    tmp_path: Path,
) -> None:
    with receivers.collector(f"--textfiles={tmp_path / 'later'}") as running:
        assert running.value("tb_collector_textfiles_unread") == 0
        (tmp_path / "later").mkdir()
        for value in (1, 2):
            (tmp_path / "later" / "a.prom").write_text(f"wallet_service_x {value}\n")
            assert running.value("wallet_service_x") == value


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
