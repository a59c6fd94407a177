"""`-m tigerbeetle_emulator`: the genuine verbs, three processes as one cluster, honest words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.emulator import raw, records, servers
from tests.emulator.native import NativeClient
from tests.emulator.raw import RawClient
from tests.emulator.servers import ServerProcess, format_file, typed
from tigerbeetle_emulator.server.addresses import Address, AddressError, parse

_ACCOUNT = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
_LOOKUP = raw.multi_batch(records.LOOKUP_ACCOUNTS, [records.pack(records.ID, id=1)])


def test_format_creates_a_private_file_once(tmp_path: Path) -> None:
    path = tmp_path / "data"
    assert format_file(path).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    again = format_file(path)
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
    done = typed("format", *arguments, str(tmp_path / "data"))
    assert done.returncode == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_inspect_reads_like_the_genuine_superblock(tmp_path: Path) -> None:
    format_file(tmp_path / "data", replica=1, count=3)
    done = typed("inspect", "superblock", str(tmp_path / "data"))
    facts = dict(re.findall(r"^\|\|\|\| ([^=]+)=(.+)$", done.stdout, re.MULTILINE))
    assert facts["cluster"] == f"0x{5:032x}"
    assert facts["vsr_state.replica_count"] == "3"
    assert facts["vsr_state.checkpoint.release"] == "0.17.9"
    assert facts["vsr_state.replica_id"] == facts["vsr_state.members[1]"]
    assert facts["vsr_state.replica_id"] != facts["vsr_state.members[0]"]


def test_version_says_what_it_is() -> None:
    assert typed("version").stdout == "TigerBeetle EMULATOR version 0.17.9\n"
    verbose = typed("version", "--verbose").stdout
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
    format_file(tmp_path / "data")
    done = typed("start", *arguments, str(tmp_path / "data"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_taken_port_is_named(emulator_process: ServerProcess, tmp_path: Path) -> None:
    format_file(tmp_path / "data")
    address = emulator_process.addresses
    done = typed("start", f"--addresses={address}", str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"error: AddressInUse: cannot listen on {address}" in done.stderr


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
