"""A deployment's name is one inventory's: state, backups and timers are kept under it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import cli
from cluster.checks import existence
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal

HERE = (
    "from cluster.config.inventory import on_this_machine\n"
    "hosts = on_this_machine({!r}, engine='emulator', runtime='process')\n"
)


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    return tmp_path / "records"


def written(file: Path, name: str = "eu") -> Path:
    file.write_text(HERE.format(name))
    return file


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """An inventory that has deployed."""
    file = written(tmp_path / "first.py")
    existence.note(inventory.read(file))
    return file


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Another one, of the same name."""
    return written(tmp_path / "second.py")


def test_a_second_inventory_of_the_name_is_refused_with_both_files(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("inventory", "status", "backup", "logs"):
        assert cli.main([command, f"--inventory={second}"]) == 2
        said = capsys.readouterr().err
        assert said == (
            f"error: {second}: expected a deployment's name that no other inventory has, found "
            f"'eu', as which {first} has deployed: they would share state, backups and timers. "
            "Fix: name one of them otherwise, or remove the file that is no longer used.\n"
        )
    assert inventory.read(first).name == "eu"


def test_a_deploy_that_pyinfra_runs_is_refused_too(first: Path, second: Path) -> None:
    data = {"deployment": "eu", "engine": "emulator", "runtime": "process"}
    with pytest.raises(Refusal, match="no other inventory has"):
        inventory.of_hosts([data | {"inventory_file": str(second)}])
    assert inventory.of_hosts([data | {"inventory_file": str(first)}]).name == "eu"


def test_where_nothing_was_deployed_nobody_has_the_name(tmp_path: Path, second: Path) -> None:
    written(tmp_path / "first.py")
    assert inventory.read(second).name == "eu"


def test_a_file_that_was_moved_is_the_same_inventory(first: Path, tmp_path: Path) -> None:
    moved = inventory.read(first.rename(tmp_path / "moved.py"))
    assert not existence.is_noted(moved)  # the next deploy notes where it is now
    since = noted(tmp_path)["since"]
    existence.note(moved)
    assert existence.is_noted(moved)
    assert (noted(tmp_path)["since"], noted(tmp_path)["inventory"]) == (since, str(moved.inventory))
    with pytest.raises(Refusal, match=r"moved\.py has deployed"):
        inventory.read(written(first))


def noted(directory: Path) -> dict[str, str]:
    (file,) = (directory / "records" / "eu").glob("*.json")
    return dict(json.loads(file.read_text()))


def test_a_link_to_the_file_is_the_same_inventory(first: Path, tmp_path: Path) -> None:
    (tmp_path / "link.py").symlink_to(first)
    assert inventory.read(tmp_path / "link.py").name == "eu"


def test_a_file_that_carries_another_name_by_now_is_no_rival(first: Path, second: Path) -> None:
    written(first, "us")
    assert inventory.read(second).name == "eu"


def test_a_file_that_does_not_load_may_still_carry_the_name(first: Path, second: Path) -> None:
    first.write_text("import nothing_of_this_name")
    with pytest.raises(Refusal, match="no other inventory has"):
        inventory.read(second)


def test_a_cluster_that_was_ended_leaves_its_name(first: Path, second: Path) -> None:
    existence.end(inventory.read(first))
    assert inventory.read(second).name == "eu"


@pytest.mark.parametrize("text", ['{"place": "here", "since": "2020-01-01T00:00:00Z"}', "torn"])
def test_a_record_that_names_no_file_is_nobody_s_claim(
    second: Path, records: Path, text: str
) -> None:
    (records / "eu").mkdir(parents=True)
    (records / "eu" / "emulator-0-000000000000.json").write_text(text)
    found: Deployment = inventory.read(second)
    assert found.name == "eu"
