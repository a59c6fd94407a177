"""`-m tigerbeetle_emulator`: the genuine verbs, three processes as one cluster, honest words."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import raw, records, servers
from tests.emulator.native import NativeClient
from tests.emulator.raw import RawClient
from tests.emulator.servers import ServerProcess
from tigerbeetle_emulator.server.addresses import Address, AddressError, parse

_ACCOUNT = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
_LOOKUP = raw.multi_batch(records.LOOKUP_ACCOUNTS, [records.pack(records.ID, id=1)])


def _emulator(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*servers.EMULATOR, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def _format(path: Path, replica: int = 0, count: int = 1) -> subprocess.CompletedProcess[str]:
    return _emulator(
        "format", "--cluster=5", f"--replica={replica}", f"--replica-count={count}", str(path)
    )


def test_format_creates_a_private_file_once(tmp_path: Path) -> None:
    path = tmp_path / "data"
    assert _format(path).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    again = _format(path)
    assert (again.returncode, again.stderr.splitlines()[-1]) == (1, "error: PathAlreadyExists")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replica=0"], "--replica-count"),
        (["--replica=3", "--replica-count=3"], "--replica: value is too large (3), at most 2"),
        (["--replica=0", "--replica-count=7"], "--replica-count: value is too large (7), at most"),
        (["--replica=0", "--replica-count=0"], "--replica-count: value needs to be greater than"),
        (["--cluster=-1", "--replica=0", "--replica-count=1"], "--cluster: expected an integer"),
        (["--replica=x", "--replica-count=1"], "--replica: expected an integer value"),
    ],
)
def test_a_wrong_format_changes_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = _emulator("format", *arguments, str(tmp_path / "data"))
    assert done.returncode == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_inspect_reads_like_the_genuine_superblock(tmp_path: Path) -> None:
    _format(tmp_path / "data", replica=1, count=3)
    done = _emulator("inspect", "superblock", str(tmp_path / "data"))
    facts = dict(re.findall(r"^\|\|\|\| ([^=]+)=(.+)$", done.stdout, re.MULTILINE))
    assert facts["cluster"] == f"0x{5:032x}"
    assert facts["vsr_state.replica_count"] == "3"
    assert facts["vsr_state.checkpoint.release"] == "0.17.9"
    assert facts["vsr_state.replica_id"] == facts["vsr_state.members[1]"]
    assert facts["vsr_state.replica_id"] != facts["vsr_state.members[0]"]


def test_version_says_what_it_is() -> None:
    assert _emulator("version").stdout == "TigerBeetle EMULATOR version 0.17.9\n"
    verbose = _emulator("version", "--verbose").stdout
    assert "process.release=0.17.9\n" in verbose
    assert "not TigerBeetle" in verbose


def test_a_start_says_that_it_is_an_emulator(tmp_path: Path) -> None:
    with servers.emulator(tmp_path, "--cache-grid=64MiB") as server:
        lines = server.log.splitlines()
        stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z "
        assert all(re.match(stamp + r"(info|warning)(\(\w+\))?: ", line) for line in lines), lines
        assert any("EMULATOR" in line and "no replication" in line for line in lines)
        assert any("without effect here: --cache-grid" in line for line in lines)
        assert lines[-1].endswith(f"0: cluster=0: listening on 127.0.0.1:{server.ports[0]}")
        view = re.search(r"0N: transition_to_normal\w+: view=(\d+)\.\.(\d+) primary", server.log)
        assert view and view[1] == view[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--addresses=localhost:3000"], "names are not resolved"),
        (["--addresses=1", "--fault-drop-replies=2"], "--fault-drop-replies: expected a rate"),
        (["--addresses=1", "--limit-request=8KiB"], "marked experimental, add `--experimental`"),
        (["--addresses=1", "--cache-grid=31MiB"], "Grid cache must be greater than 32MiB"),
        (["--addresses=1", "--nonsense"], "unexpected argument: '--nonsense'"),
        ([], "--addresses"),
    ],
)
def test_a_wrong_start_ends_with_one_clear_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    _format(tmp_path / "data")
    done = _emulator("start", *arguments, str(tmp_path / "data"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_taken_port_is_named(emulator_process: ServerProcess, tmp_path: Path) -> None:
    _format(tmp_path / "data")
    address = emulator_process.addresses
    done = _emulator("start", f"--addresses={address}", str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"error: AddressInUse: cannot listen on {address}" in done.stderr


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
    _format(tmp_path / "data")
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
    _format(tmp_path / "data")
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
    --trace=trace --commit-stall-multiple-max=3 --timeout-prepare-ms=10 --timeout-grid-repair-message-ms=20
    --memory-lsm-compaction=64MiB --memory-lsm-manifest=2MiB --cache-accounts=1MiB
    --cache-transfers=0 --cache-transfers-pending=1MiB --limit-storage=2GiB --cache-grid=64MiB"""


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
    done = _emulator(
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
    _format(tmp_path / "of three", replica=1, count=3)
    done = _emulator("start", "--addresses=3000,3001", str(tmp_path / "of three"))
    assert done.returncode == 1
    assert "--addresses: expected 3, as formatted, found 2" in done.stderr


def test_a_standby_is_formatted_and_needs_its_address(tmp_path: Path) -> None:
    done = _emulator(
        *("format", "--cluster=5", "--standby=3", "--replica-count=3", str(tmp_path / "data"))
    )
    assert done.returncode == 0, done.stderr
    done = _emulator("start", "--addresses=3000,3001,3002", str(tmp_path / "data"))
    assert "--addresses: expected 4, as formatted, found 3" in done.stderr


def test_a_relay_to_itself_is_refused(tmp_path: Path) -> None:
    _format(tmp_path / "data", replica=1, count=3)
    done = _emulator("start", "--addresses=3000,3000,3001", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "expected another address for replica 1 than replica 0's, 127.0.0.1:3000" in done.stderr


def _cluster(directory: Path, *options: str) -> list[ServerProcess]:
    ports = tuple(servers.free_port() for _ in range(3))
    return [
        ServerProcess(servers.EMULATOR, directory, replica=n, ports=ports, options=options)
        for n in range(3)
    ]


def test_three_processes_are_one_cluster(tmp_path: Path) -> None:
    replicas = _cluster(tmp_path)
    try:
        for server in replicas:
            server.start()
        for index in (1, 2):
            assert re.search(rf"{index}n: transition_to_normal\w+: .* backup", replicas[index].log)
        with RawClient(replicas[0].ports[1]) as client:
            client.register()
            client.batches(records.CREATE_ACCOUNTS, [_ACCOUNT])
        with RawClient(replicas[0].ports[2]) as client:
            client.register()
            assert len(client.request(records.LOOKUP_ACCOUNTS, _LOOKUP).body) == 256
            large = raw.multi_batch(
                records.LOOKUP_ACCOUNTS, [records.pack(records.ID, id=1) * 8189]
            )
            found = raw.split_batches(client.request(records.LOOKUP_ACCOUNTS, large).body, 128)
            assert len(found[0]) == 8189 * 128
    finally:
        for server in replicas:
            server.stop()


def test_relays_come_back_when_the_ledger_does(tmp_path: Path) -> None:
    replicas = _cluster(tmp_path)
    try:
        for server in replicas:
            server.start()
        with NativeClient(0, replicas[0].addresses) as client:
            client.request(records.CREATE_ACCOUNTS, _ACCOUNT)
            replicas[0].kill()
            with RawClient(replicas[0].ports[1]) as lost, pytest.raises(raw.Closed):
                lost.receive()
            waiting = client.submit(records.LOOKUP_ACCOUNTS, records.pack(records.ID, id=1))
            assert not waiting.done
            replicas[0].start()
            assert len(waiting.wait().data) == 128
        with RawClient(replicas[0].ports[2]) as client_of_relay:
            client_of_relay.register()
    finally:
        for server in replicas:
            server.stop()


def test_relayed_clients_do_not_take_the_places_of_others(tmp_path: Path) -> None:
    replicas = _cluster(tmp_path, "--development")
    clients: list[RawClient] = []
    try:
        for server in replicas:
            server.start()
        for port in replicas[0].ports:
            for _ in range(8):
                clients.append(RawClient(port))
                clients[-1].register()
        for port in replicas[0].ports:
            with RawClient(port) as surplus, pytest.raises(raw.Closed):
                surplus.register()
    finally:
        for client in clients:
            client.close()
        for server in replicas:
            server.stop()


def test_one_process_can_serve_all_addresses(tmp_path: Path) -> None:
    replica = _cluster(tmp_path, "--serve-all")[0]
    try:
        replica.start()
        for port in replica.ports:
            with RawClient(port) as client:
                client.register()
    finally:
        replica.stop()


def test_it_listens_on_its_own_address_only(tmp_path: Path) -> None:
    replica = _cluster(tmp_path)[0]
    try:
        replica.start()
        for port in replica.ports[1:]:
            with pytest.raises(ConnectionRefusedError):
                RawClient(port)
    finally:
        replica.stop()


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    with servers.emulator(tmp_path) as server:
        server.stop()
        assert server.process is not None
        assert server.process.returncode == 0
        server.start()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3000", [Address("127.0.0.1", 3000)]),
        ("10.0.0.1", [Address("10.0.0.1", 3001)]),
        ("10.0.0.1:0,[::1]:3002", [Address("10.0.0.1", 0), Address("::1", 3002)]),
        ("[::1]", [Address("::1", 3001)]),
    ],
)
def test_addresses_are_read_like_the_genuine_ones(text: str, expected: list[Address]) -> None:
    assert parse(text) == expected
    assert parse(",".join(map(str, expected))) == expected


@pytest.mark.parametrize(
    "text",
    ["", "host:3000", "1.2.3.4:99999", "1.2.3.4:x", "3000,", "1,2,3,4,5,6,7,8,9,10,11,12,13"],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text)
