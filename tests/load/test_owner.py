"""A run is of one cluster: commands take only their own, say whose it is, and refuse another's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster import cli
from cluster.refusal import Refusal
from loadtests.proof.audit import audit as prove
from loadtests.report import report
from loadtests.run import chosen, history, runs, target
from loadtests.run.result import TARGET, Target
from tests.leases import addresses, free_ports
from tests.load.conftest import Program, Server
from tests.load.samples import audit, manifest, result

HERE = (
    "from cluster.config.inventory import on_this_machine\n"
    "replicas = on_this_machine({name!r}, engine={engine!r}, runtime='process')\n"
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs are; nobody has named an inventory."""
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.delenv("INVENTORY", raising=False)
    return tmp_path / "runs"


def inventory(directory: Path, name: str, engine: str = "emulator", *, file: str = "") -> str:
    """An inventory file of this machine; its path."""
    path = directory / f"{file or name}.py"
    path.write_text(HERE.format(name=name, engine=engine))
    return str(path)


def run_of(whose: Target, kept: Path, name: str, at: int) -> Path:
    """A finished and audited run of this cluster, ``at`` seconds after the others."""
    made = kept / name
    made.mkdir(parents=True)
    noted = manifest().model_copy(update={"run": name, "target": whose})
    runs.write_json(made / runs.MANIFEST, noted.model_dump_json())
    runs.write_json(
        made / "result.json", result().model_copy(update={"manifest": noted}).model_dump_json()
    )
    runs.write_json(made / "audit.json", audit().model_dump_json())
    os.utime(made / runs.MANIFEST, (at, at))
    return made


def recorded(whose: Target | None, kept: Path, name: str) -> Path:
    """An empty history of this cluster."""
    made = kept / name
    history.Writer(made).close()
    if whose:
        runs.write_json(made / TARGET, whose.model_dump_json())
    return made


@pytest.fixture
def both(kept: Path, tmp_path: Path) -> tuple[str, str]:
    """Two inventories. The newest run of all is the second one's."""
    first, second = inventory(tmp_path, "first"), inventory(tmp_path, "second")
    run_of(target.of_inventory(first), kept, "old", 1)
    run_of(target.of_inventory(first), kept, "of-first", 2)
    run_of(target.of_inventory(second), kept, "of-second", 3)
    return first, second


def test_the_newest_run_is_the_newest_of_the_cluster_that_is_meant(both: tuple[str, str]) -> None:
    first, second = both
    assert chosen.run(None, first).name == "of-first"
    assert chosen.run(None, second).name == "of-second"


@pytest.mark.parametrize("command", [["audit"], ["report"], ["gate", "loadtests/gate.toml"]])
def test_a_run_of_another_cluster_is_refused_in_one_line(
    both: tuple[str, str], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = both
    assert cli.main([*command, f"--inventory={first}", "--run=of-second"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "error: RUN: expected one of cluster 0 (first, emulator), found of-second of cluster 0 "
        "(second, emulator). Fix: name a run of this cluster; or, as the INVENTORY, its own, "
        f"INVENTORY={second}, or none.\n"
    )


def test_a_history_of_another_cluster_is_refused(
    both: tuple[str, str], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = both
    recorded(target.of_inventory(second), kept, "history")
    recorded(None, kept, "from-before")  # when nobody noted whose it was
    for name in ("history", "from-before"):
        assert cli.main(["check", f"--inventory={first}", f"--run={name}"]) == 2
        assert "error: RUN: expected one of cluster 0 (first, " in capsys.readouterr().err
    assert chosen.run(None, second, chosen.RECORDED).name == "history"
    with pytest.raises(Refusal, match=r"the newest is .* a cluster that was not noted"):
        chosen.run(None, first, chosen.RECORDED)


def test_runs_of_another_cluster_are_compared_only_where_no_cluster_is_meant(
    both: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = both
    assert cli.main(["compare", f"--inventory={first}", "of-first", "of-second"]) == 2
    assert "found of-second of cluster 0 (second, emulator)" in capsys.readouterr().err
    assert cli.main(["compare", "of-first", "of-second"]) == 0
    said = capsys.readouterr().out
    assert "A is of cluster 0 (first, emulator)" in said
    assert "B is of cluster 0 (second, emulator)" in said
    assert "not the same: cluster: cluster 0 (first, emulator) / cluster 0 (second" in said


def test_a_run_that_is_named_without_an_inventory_says_itself_whose_it_is(
    both: tuple[str, str],
) -> None:
    for name in ("of-first", "of-second"):
        assert chosen.run(name, None).name == name


def test_without_an_inventory_the_default_one_is_meant_as_everywhere(
    both: tuple[str, str], kept: Path
) -> None:
    with pytest.raises(Refusal) as refused:
        chosen.run(None, None)
    assert str(refused.value) == (
        f"RUN: expected one of cluster 0 (emulator, emulator), found none in {kept}; the newest is "
        "of-second of cluster 0 (second, emulator). Fix: make load "
        f"INVENTORY=inventories/emulator.py, or name that one: INVENTORY={both[1]}"
    )
    run_of(target.of_inventory(None), kept, "of-default", 0)
    assert chosen.run(None, None).name == "of-default"


@pytest.mark.parametrize(
    "changes", [{"cluster_id": "7"}, {"deployment": "third"}, {"engine": "tigerbeetle"}]
)
def test_id_name_and_engine_make_the_cluster(
    both: tuple[str, str], changes: dict[str, str]
) -> None:
    whose = target.of_inventory(both[0])
    assert not whose.is_of(whose.model_copy(update=changes))


def test_another_place_and_another_file_do_not(both: tuple[str, str]) -> None:
    whose = target.of_inventory(both[0])
    moved = {"addresses": "10.0.0.1:1", "inventory": "elsewhere.py", "release": "0.18.0"}
    assert whose.is_of(whose.model_copy(update=moved))


def test_an_inventory_that_was_renamed_still_has_its_runs(
    both: tuple[str, str], tmp_path: Path
) -> None:
    moved = Path(both[0]).rename(tmp_path / "renamed.py")
    assert chosen.run(None, str(moved)).name == "of-first"
    assert chosen.run("old", str(moved)).name == "old"


def test_a_run_at_addresses_given_by_hand_is_nobody_s(both: tuple[str, str], kept: Path) -> None:
    run_of(target.by_hand("0", "127.0.0.1:3000", "emulator"), kept, "by-hand", 9)
    assert chosen.run("by-hand", None).name == "by-hand"
    for file in (*both, "inventories/emulator.py"):
        with pytest.raises(Refusal, match=r"by-hand of cluster 0 \(addresses, emulator\)"):
            chosen.run("by-hand", file)


def test_a_newest_run_that_cannot_be_read_is_not_passed_over(
    both: tuple[str, str], kept: Path
) -> None:
    """It may be of this cluster; an older one would be judged in its place."""
    (kept / "of-second" / runs.MANIFEST).write_text("{}")
    with pytest.raises(Refusal, match=r"of-second/run\.json: expected what a run writes"):
        chosen.run(None, both[0])


def test_the_report_says_whose_the_run_is_and_how_it_is_audited(
    both: tuple[str, str], kept: Path
) -> None:
    (kept / "of-second" / "audit.json").unlink()
    page = report.write(kept / "of-second").read_text()
    assert "cluster 0 (second, emulator) at 127.0.0.1:" in page
    assert f"<code>make audit INVENTORY={both[1]} RUN=of-second</code>" in page


def test_an_audit_goes_the_named_inventory_s_way(
    both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded addresses may be another cluster's by now, and its file may have moved."""
    monkeypatch.setattr("cluster.runtimes.process.Process.check_up", lambda _: None)
    whose = target.of_inventory(both[0])
    old = whose.model_copy(update={"addresses": "127.0.0.1:1", "inventory": "gone.py"})
    assert target.way(old) == "127.0.0.1:1"
    assert target.way(old, both[0]) == whose.addresses


def test_what_answers_at_a_stopped_cluster_s_addresses_is_not_taken_for_it(
    both: tuple[str, str], server: Server, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployments of one machine share ports and ids: one is down, another one listens there."""
    for variable, value in addresses([server.port, *free_ports(2)]).items():
        monkeypatch.setenv(variable, value)
    first, _ = both
    monkeypatch.setenv("INVENTORY", first)
    for command in ("load", "workload"):
        done = program("--run-time", "1", command=command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == (
            "error: cluster 0 (first, emulator): expected a replica of it that runs, found none: "
            "what answers at its addresses is another cluster's. Fix: make up "
            f"INVENTORY={first}\n"
        )
    found = prove(run_of(target.of_inventory(first), program.runs, "before", 1))
    assert found.verdict == "unknown"
    assert "expected a replica of it that runs" in found.checks[-1].detail
