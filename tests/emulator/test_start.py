"""`start` with the genuine server's options: `--addresses=0`, what has no effect, standbys."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import raw, records, servers
from tests.emulator.raw import RawClient
from tests.emulator.servers import ServerProcess, format_file, typed

_LOOKUP = raw.multi_batch(records.LOOKUP_ACCOUNTS, [records.pack(records.ID, id=1)])


def test_port_zero_lets_the_system_choose(tmp_path: Path) -> None:
    server = ServerProcess(servers.EMULATOR, tmp_path, ports=(0,))
    try:
        server.start()
        chosen = re.search(r"listening on 127\.0\.0\.1:(\d+)", server.log)
        assert chosen
        with RawClient(int(chosen[1])) as client:
            client.register()
    finally:
        server.stop()


@pytest.fixture
def zero(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Started as a program does that wants any port: `--addresses=0`."""
    format_file(tmp_path / "data")
    process = subprocess.Popen(
        [*servers.EMULATOR, "start", "--addresses=0", str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate(timeout=60)


def test_address_zero_prints_the_port_alone_and_closes_stdout(zero: subprocess.Popen[str]) -> None:
    assert zero.stdout
    said = zero.stdout.read()  # to its end, while the server goes on
    assert re.fullmatch(r"\d+\n", said)
    with RawClient(int(said), cluster=5) as client:
        client.register()
    assert zero.poll() is None


@pytest.mark.parametrize("last", ["", "x"])
def test_address_zero_ends_with_its_parent(zero: subprocess.Popen[str], last: str) -> None:
    assert zero.stdout
    assert zero.stdout.readline()
    _, log = zero.communicate(last, timeout=60)  # closes stdin
    assert zero.returncode == 0
    assert "stdin closed, exiting" in log


@pytest.mark.parametrize("addresses", ["127.0.0.1:0", "0,0"])
def test_other_ways_to_write_zero_wait_for_no_parent(tmp_path: Path, addresses: str) -> None:
    format_file(tmp_path / "data")
    process = subprocess.Popen(
        [*servers.EMULATOR, "start", f"--addresses={addresses}", str(tmp_path / "data")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr and process.stdout
        lines = iter(process.stderr.readline, "")
        chosen = next(m for line in lines if (m := re.search(r"listening on .*:(\d+)", line)))
        with RawClient(int(chosen[1]), cluster=5) as client:
            client.register()
    finally:
        process.terminate()
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


_WITHOUT_EFFECT = """--statsd=127.0.0.1:1 --aof-file=a.aof --aof-recovery --replicate-star
    --log-trace --commit-stall-probability=1/3 --commit-stall-lag-min=1 --commit-stall-lag-max=2
    --trace=trace --commit-stall-multiple-max=3 --timeout-prepare-ms=10
    --timeout-grid-repair-message-ms=20 --memory-lsm-compaction=64MiB --memory-lsm-manifest=2MiB
    --cache-accounts=1MiB --cache-transfers=0 --cache-transfers-pending=1MiB
    --limit-storage=2GiB --cache-grid=64MiB"""


def test_every_option_of_the_genuine_server_is_taken_and_named_if_without_effect(
    tmp_path: Path,
) -> None:
    ignored = _WITHOUT_EFFECT.split()
    effective = ("--experimental=true", "--development=true", "--log-debug", "--limit-request=8KiB")
    with servers.emulator(tmp_path, *effective, *ignored) as server:
        (said,) = re.findall("without effect here: (.*)", server.log)
        assert sorted(said.split()) == sorted(option.partition("=")[0] for option in ignored)
        with RawClient(server.ports[0]) as client:
            assert client.register().body[:4] == (8192 - 256).to_bytes(4, "little")
            client.ask(records.LOOKUP_ACCOUNTS, _LOOKUP, request=9)
        assert "debug(message_bus): " in server.log
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.log", "0.tigerbeetle"]


def test_format_names_what_has_no_effect(tmp_path: Path) -> None:
    done = typed(
        *("format", "--replica=0", "--replica-count=1", "--development=true", "--log-debug=false"),
        str(tmp_path / "data"),
    )
    assert done.returncode == 0
    assert "info(main): without effect here: --development\n" in done.stderr
    assert re.search(r"generated random cluster id: \d{20,}\n", done.stderr)


def test_addresses_of_standbys_are_taken_and_fewer_than_replicas_are_not(tmp_path: Path) -> None:
    port, other = servers.free_port(), servers.free_port()
    server = ServerProcess(servers.EMULATOR, tmp_path, ports=(port,))
    server.ports = (port, other, other)  # replica 0, and two standbys, as the genuine server has it
    try:
        server.start()
        with RawClient(port) as client:
            client.register()
    finally:
        server.stop()
    format_file(tmp_path / "of three", replica=1, count=3)
    done = typed("start", "--addresses=3000,3001", str(tmp_path / "of three"))
    assert done.returncode == 1
    assert "--addresses: expected 3, as formatted, found 2" in done.stderr


def test_a_standby_is_formatted_and_needs_its_address(tmp_path: Path) -> None:
    done = typed(
        *("format", "--cluster=5", "--standby=3", "--replica-count=3", str(tmp_path / "data"))
    )
    assert done.returncode == 0, done.stderr
    done = typed("start", "--addresses=3000,3001,3002", str(tmp_path / "data"))
    assert "--addresses: expected 4, as formatted, found 3" in done.stderr


def test_a_relay_to_itself_is_refused(tmp_path: Path) -> None:
    format_file(tmp_path / "data", replica=1, count=3)
    done = typed("start", "--addresses=3000,3000,3001", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "expected another address for replica 1 than replica 0's, 127.0.0.1:3000" in done.stderr
