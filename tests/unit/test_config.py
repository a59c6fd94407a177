"""A bad setting ends in one line that names variable, expected, found and fix; exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster import config
from cluster.config import ENV_FILE, size_bytes
from cluster.refusal import Refusal

P = config.PREFIX


def settings(**changes: str | None) -> dict[str, str]:
    """The committed settings with some changed, or removed where None."""
    merged: dict[str, str | None] = {**config.read(ENV_FILE, {})}
    merged.update({f"{P}{key.lstrip('_')}": value for key, value in changes.items()})
    return {key: value for key, value in merged.items() if value is not None}


def replicas(count: int) -> dict[str, str]:
    """Settings of ``count`` well-formed replicas."""
    base = {k: v for k, v in settings().items() if not config.REPLICA_KEY.fullmatch(k)}
    for i in range(count):
        base |= {
            f"{P}{i}_CONTAINER_NAME": f"tigerbeetle-{i}",
            f"{P}{i}_IP": f"172.20.0.{10 + i}",
            f"{P}{i}_PORT": str(3000 + i),
        }
    base[f"{P}ADDRESSES"] = ",".join(f"172.20.0.{10 + i}:{3000 + i}" for i in range(count))
    return base


def test_the_committed_file_is_valid() -> None:
    cluster = config.parse(settings())
    assert cluster.addresses == "172.20.0.10:3000,172.20.0.11:3001,172.20.0.12:3002"
    assert [replica.name for replica in cluster.replicas] == [f"tigerbeetle-{i}" for i in range(3)]
    assert cluster.id == 0


def test_a_cluster_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config.parse(settings()).id = 1  # type: ignore[misc]


def test_the_token_is_in_no_printed_cluster() -> None:
    cluster = config.parse(settings())
    assert cluster.token not in repr(cluster)
    assert cluster.token not in str(cluster)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_one_three_or_six_replicas_are_a_cluster(count: int) -> None:
    assert len(config.parse(replicas(count)).replicas) == count


BAD = [
    # what is changed, the variable that the error names, what it says
    ({"0_IP": None}, "0_IP", "found nothing"),
    ({"SUBNET": None}, "SUBNET", "found nothing"),
    ({"CLUSTER_ID": None}, "CLUSTER_ID", "found nothing"),
    ({"1_IP": "172.20.0.300"}, "1_IP", "expected an IPv4 address"),
    ({"1_IP": "localhost"}, "1_IP", "expected an IPv4 address"),
    ({"1_IP": "172.20.0.10"}, "1_IP", "differs from replica 0's"),
    ({"2_PORT": "3000"}, "2_PORT", "differs from replica 0's"),
    ({"2_PORT": "http"}, "2_PORT", "expected a port from 1 to 65535"),
    ({"2_PORT": "0"}, "2_PORT", "expected a port from 1 to 65535"),
    ({"2_PORT": "65536"}, "2_PORT", "expected a port from 1 to 65535"),
    ({"2_CONTAINER_NAME": "tigerbeetle-0"}, "2_CONTAINER_NAME", "differs from replica 0's"),
    ({"2_CONTAINER_NAME": "-rm; x"}, "2_CONTAINER_NAME", "expected a container name"),
    ({"SUBNET": "172.20.0.1/24"}, "SUBNET", "host bits zero"),
    ({"SUBNET": "10.0.0.0/24"}, "0_IP", "inside 10.0.0.0/24"),
    ({"ADDRESSES": None}, "ADDRESSES", "found nothing"),
    (
        {"ADDRESSES": "172.20.0.11:3001,172.20.0.10:3000,172.20.0.12:3002"},
        "ADDRESSES",
        "expected 172.20.0.10:3000,172.20.0.11:3001,172.20.0.12:3002",
    ),
    ({"ADDRESSES": "172.20.0.10:3000"}, "ADDRESSES", "in order"),
    ({"CLUSTER_ID": "-1"}, "CLUSTER_ID", "from 0 to 2^128 - 1"),
    ({"CLUSTER_ID": str(2**128)}, "CLUSTER_ID", "from 0 to 2^128 - 1"),
    ({"AUTH_TOKEN": ""}, "AUTH_TOKEN", "not empty"),
    ({"RELEASE": "latest"}, "RELEASE", "such as 0.17.9"),
    ({"IMAGE_DIGEST": "sha256:123"}, "IMAGE_DIGEST", "make pin"),
    ({"SHA256_X86_64": "beef"}, "SHA256_X86_64", "make pin"),
    ({"DOWNLOAD_URL": "file:///etc"}, "DOWNLOAD_URL", "http(s)"),
    ({"CUSTOM_IMAGE": "Tiger:latest"}, "CUSTOM_IMAGE", "without a tag"),
    ({"IMAGE": "mirror.lan/tigerbeetle-emulator"}, "CUSTOM_IMAGE", "with 'emulator' in it"),
    ({"SECCOMP": ""}, "SECCOMP", "seccomp profile"),
    ({"SECCOMP": "default"}, "SECCOMP", "or unconfined"),
    ({"CACHE_GRID": "512"}, "CACHE_GRID", "such as 512MiB"),
    ({"MEMORY_LIMIT": "2GiB"}, "MEMORY_LIMIT", "at least 2642MiB"),
    ({"MEMLOCK": "unlimited"}, "MEMLOCK", "-1 for unlimited"),
    ({"BIND": "eth0"}, "BIND", "IPv4 address"),
    ({"DATA_DIR": ""}, "DATA_DIR", "a directory"),
    ({"STATSD": "localhost:8125"}, "STATSD", "resolves no host names"),
    # What Python would read, and Compose, Docker or the server in another way, or not at all.
    ({"CLUSTER_ID": "007"}, "CLUSTER_ID", "expected 7, as everything else reads it, found '007'"),
    ({"CLUSTER_ID": "1_000"}, "CLUSTER_ID", "expected 1000, as"),
    ({"CLUSTER_ID": "+7"}, "CLUSTER_ID", "expected 7, as"),
    ({"CLUSTER_ID": "7.0"}, "CLUSTER_ID", "expected 7, as"),
    ({"2_PORT": "03002"}, "2_PORT", "expected 3002, as"),
    ({"2_PORT": " 3002"}, "2_PORT", "expected 3002, as"),
    ({"MEMLOCK": "-01"}, "MEMLOCK", "expected -1, as"),
    ({"SUBNET": "172.20.0.0/255.255.255.0"}, "SUBNET", "expected 172.20.0.0/24, as"),
    ({"CACHE_GRID": "0512MiB"}, "CACHE_GRID", "such as 512MiB"),
    ({"CACHE_GRID": "\uff15\uff11\uff12MiB"}, "CACHE_GRID", "such as 512MiB"),
    ({"RELEASE": "0.17.09"}, "RELEASE", "such as 0.17.9"),
    ({"STATSD": "172.20.0.999:8125"}, "STATSD", "IP:PORT"),
    ({"STATSD": "172.20.0.9:08125"}, "STATSD", "IP:PORT"),
    ({"STATSD": "172.20.0.9:99999"}, "STATSD", "IP:PORT"),
    ({"IMAGE": "ghcr.io/tigerbeetle/tigerbeetle:0.17.9"}, "IMAGE", "without a tag"),
    ({"CUSTOM_IMAGE": "tiger//custom"}, "CUSTOM_IMAGE", "without a tag"),
    ({"2_CONTAINER_NAME": "a"}, "2_CONTAINER_NAME", "two or more letters"),
    ({"DATA_DIR": "~nobody-of-this-name/x"}, "DATA_DIR", "a directory"),
    ({"DATA_DIR": "a\nb"}, "DATA_DIR", "a directory"),
    # What no server takes.
    ({"CACHE_GRID": "31MiB"}, "CACHE_GRID", "expected from 32MiB to 2047TiB"),
    ({"CACHE_GRID": "9999999GiB"}, "CACHE_GRID", "expected from 32MiB to 2047TiB"),
    ({"MEMORY_LIMIT": "9999999999GiB"}, "MEMORY_LIMIT", "less than 8EiB"),
    ({"MEMLOCK": "0"}, "MEMLOCK", "with 0 no server starts"),
]


@pytest.mark.parametrize(
    ("changes", "variable", "says"), BAD, ids=[f"{v}-{i}" for i, (_, v, _) in enumerate(BAD)]
)
def test_a_bad_value_is_named_with_what_was_expected(
    changes: dict[str, str | None], variable: str, says: str
) -> None:
    with pytest.raises(Refusal) as error:
        config.parse(settings(**{f"_{key}": value for key, value in changes.items()}))
    line = str(error.value)
    assert line.startswith(f"{P}{variable}: expected ")
    assert says in line
    assert ", found " in line
    assert ". Fix: " in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("count", "says"),
    [(0, "without a gap"), (2, "use 3"), (4, "use 3 or 6"), (5, "use 3 or 6"), (7, "at most 6")],
)
def test_other_replica_counts_are_refused_with_the_reason(count: int, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        config.parse(replicas(count))


def test_a_gap_in_the_replica_numbers_is_refused() -> None:
    gap = {k: v for k, v in replicas(6).items() if f"{P}1_" not in k}
    with pytest.raises(Refusal, match="without a gap"):
        config.parse(gap)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="expected a readable file"):
        config.read(tmp_path / "absent.env", {})
    (tmp_path / "binary.env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refusal, match="expected a readable file"):
        config.read(tmp_path / "binary.env", {})


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        (f"{P}1_PROT", f"{P}1_PORT"),
        (f"{P}ADRESSES", f"{P}ADDRESSES"),
        ("LU_CFG_TIGERBETLE_SUBNET", f"{P}SUBNET"),
    ],
)
def test_a_mistyped_name_in_the_file_is_refused_and_the_right_one_suggested(
    tmp_path: Path, typo: str, meant: str
) -> None:
    file = tmp_path / "x.env"
    file.write_text(f"{ENV_FILE.read_text()}{typo}=1\n")
    with pytest.raises(Refusal, match=f"^{typo}: .*did you mean {meant}"):
        config.read(file, {})


def test_a_mistyped_name_in_the_environment_is_refused() -> None:
    with pytest.raises(Refusal, match="in the environment"):
        config.read(ENV_FILE, {f"{P}CACHE_GRIDD": "1GiB"})


UNEVEN = [
    f"{P}DATA_DIR=$HOME/x",
    f'{P}DATA_DIR="${{HOME}}/x"',
    f"{P}DATA_DIR=a\\tb",
    f'{P}DATA_DIR="a',
    f"{P}DATA_DIR=#x",
    f"{P}DATA_DIR: x",
    f"{P}DATA_DIR",
]


@pytest.mark.parametrize("line", UNEVEN)
def test_a_line_that_compose_and_python_read_in_two_ways_is_refused(
    tmp_path: Path, line: str
) -> None:
    file = tmp_path / "x.env"
    file.write_text(ENV_FILE.read_text().replace(f"{P}DATA_DIR=.state", line))
    with pytest.raises(Refusal, match=r"x.env, line 58: expected KEY=value .*DATA_DIR"):
        config.read(file, {})


@pytest.mark.parametrize("line", ["{}=x y", '{}="x y"', "{}='x y'  # here", " export {}=x y "])
def test_a_line_that_both_read_alike_is_read(tmp_path: Path, line: str) -> None:
    file = tmp_path / "x.env"
    file.write_text(
        ENV_FILE.read_text().replace(f"{P}DATA_DIR=.state", line.format(f"{P}DATA_DIR"))
    )
    assert config.read(file, {})[f"{P}DATA_DIR"] == "x y"


def test_a_home_is_a_home() -> None:
    cluster = config.parse(settings(DATA_DIR="~/x"))
    assert cluster.data_dir == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("text", "found"), [(None, "none at "), ("{", "no JSON"), ("[]", "no JSON"), ("{}", "no JSON")]
)
def test_a_seccomp_profile_that_is_none_is_refused_before_anything_else(
    tmp_path: Path, text: str | None, found: str
) -> None:
    file = tmp_path / "nope.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Refusal, match=f"^{P}SECCOMP: expected .*found {found}"):
        config.load(environ={f"{P}SECCOMP": str(file)})


def test_a_wrong_value_of_the_environment_is_not_blamed_on_the_file() -> None:
    with pytest.raises(Refusal) as error:
        config.load(environ={f"{P}CACHE_GRID": "lots"})
    assert str(error.value) == (
        f"{P}CACHE_GRID: expected a size such as 512MiB or 1GiB, found 'lots' in the environment. "
        f"Fix: correct it there, or `unset {P}CACHE_GRID` for the one in env/tigerbittle.env."
    )


def test_a_value_of_the_file_that_does_not_fit_the_environment_s_names_that() -> None:
    same = {f"{P}RELEASE": config.load(environ={}).release}
    with pytest.raises(Refusal) as error:
        config.load(environ={f"{P}0_PORT": "4000", **same})
    assert str(error.value).startswith(f"{P}ADDRESSES: expected 172.20.0.10:4000,")
    assert str(error.value).endswith(f"; the environment sets {P}0_PORT.")


def test_other_variables_of_the_environment_are_none_of_our_business() -> None:
    assert "HOME" not in config.read(ENV_FILE, {"HOME": "/root"})


def test_the_environment_wins_over_the_file_as_in_compose() -> None:
    assert config.load(ENV_FILE, {f"{P}CLUSTER_ID": "7"}).id == 7
    assert config.load(ENV_FILE, {}).id == 0


def test_on_loopback_only_the_addresses_differ() -> None:
    cluster = config.parse(settings())
    local = cluster.on_loopback()
    assert local.addresses == "127.0.0.1:3000,127.0.0.1:3001,127.0.0.1:3002"
    assert local.id == cluster.id
    assert cluster.addresses.startswith("172.20.0.10")


@given(number=st.integers(0, 4096), unit=st.sampled_from(["KiB", "MiB", "GiB"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    power = {"KiB": 1, "MiB": 2, "GiB": 3}[unit]
    assert size_bytes(f"{number}{unit}") == number * 1024**power


@given(text=st.text().filter(lambda t: not t.endswith(("KiB", "MiB", "GiB"))))
def test_anything_else_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size_bytes(text)


def edit(**changes: str | None) -> str:
    """The text of an env file with these variables changed, or left out where None."""
    return "".join(f"{k}={v}\n" for k, v in settings(**changes).items())


def with_replicas(count: int) -> str:
    return "".join(f"{key}={value}\n" for key, value in replicas(count).items())


BAD_FILES = {
    "missing variable": (edit(_RELEASE=None), f"{P}RELEASE: expected a release"),
    "wrong IP": (edit(_0_IP="172.20.0"), f"{P}0_IP: expected an IPv4 address"),
    "port clash": (edit(_1_PORT="3002"), f"{P}2_PORT: expected one that differs from replica 1's"),
    "address order": (
        edit(_ADDRESSES="172.20.0.12:3002,172.20.0.11:3001,172.20.0.10:3000"),
        f"{P}ADDRESSES: expected 172.20.0.10:3000,",
    ),
    "outside the subnet": (edit(_SUBNET="172.21.0.0/24"), f"{P}0_IP: expected an address inside"),
    "two replicas": (with_replicas(2), f"{P}X_IP: expected 1, 3 or 6 replicas"),
    "four replicas": (with_replicas(4), f"{P}X_IP: expected 1, 3 or 6 replicas"),
    "a typo": (edit() + f"{P}SUBNETT=x\n", f"{P}SUBNETT: expected a known variable (did you mean"),
    "unreadable file": (None, "tigerbittle.env: expected a readable file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_ends_with_code_2_and_one_line(tmp_path: Path, case: str) -> None:
    text, says = BAD_FILES[case]
    file = tmp_path / "tigerbittle.env"
    if text is not None:
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "config", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert ", found " in line
    assert ". Fix: " in line


def test_a_good_file_ends_with_code_0(tmp_path: Path) -> None:
    file = tmp_path / "tigerbittle.env"
    file.write_text(edit(_CLUSTER_ID="7"))
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "config", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout == (
        "cluster 7, release 0.17.9, at 172.20.0.10:3000,172.20.0.11:3001,172.20.0.12:3002\n"
    )


COMMANDS = [
    ["config"],
    ["inventory"],
    ["status"],
    ["logs"],
    ["watch"],
    ["doctor"],
    ["quickstart"],
    ["compose-tb", "up"],
    ["backup"],
    ["recover", "--replica", "0"],
    ["planned-stop", "stop"],
    ["workload"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_ends_with_code_2_and_one_line(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *command],
        env=os.environ | {f"{P}1_PORT": "70000"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {P}1_PORT: expected a port from 1 to 65535, found '70000' in the environment. "
        f"Fix: correct it there, or `unset {P}1_PORT` for the one in env/tigerbittle.env."
    ]
    assert done.stdout == ""


def test_pyinfra_itself_ends_with_code_2_before_it_connects(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "--yes", "inventories/emulator.py", "deploy.py"],
        env=os.environ | {f"{P}SUBNET": "10.0.0.0/24", f"{P}DATA_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ENV_FILE.parent.parent,
    )
    assert done.returncode == 2
    assert f"error: {P}0_IP: expected an address inside 10.0.0.0/24" in done.stderr
    assert "Connected" not in done.stderr
    assert not (tmp_path / "state").exists()
