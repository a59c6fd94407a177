"""``python -m cluster``: one line and one exit code, whatever ends a command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cluster import REPOSITORY, cli, command
from cluster.refusal import Failed, Refusal, begun

HEAVY = ("locust", "gevent", "numpy", "pyinfra", "tigerbeetle", "supervisor")


def ended(raised: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command that raises this."""

    @click.command()
    def one() -> None:
        if raised is not None:
            raise raised

    monkeypatch.setattr(cli.Table, "get_command", lambda *_: one)
    return cli.main(["one"])


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (None, 0, ""),
        (
            Refusal("X", expected="1", found=2, fix="set it"),
            2,
            "error: X: expected 1, found 2. Fix: set it.\n",
        ),
        (Refusal("not confirmed"), 2, "error: not confirmed\n"),
        (Failed("deploy: failed"), 1, "error: deploy: failed\n"),
    ],
)
def test_what_is_refused_ends_in_one_line(
    raised: Exception | None,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(raised, monkeypatch) == code
    assert capsys.readouterr() == ("", line)


def test_an_interrupt_ends_with_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_an_interrupt_while_it_starts_ends_likewise(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "status"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("arguments", [["nothing"], ["status", "--nothing"], ["restore"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "Usage: python -m cluster" in capsys.readouterr().err


def test_what_has_begun_and_is_refused_has_failed() -> None:
    with pytest.raises(Failed, match=r"^no disk; nothing was taken$"), begun("; nothing was taken"):
        raise Refusal("no disk")


def test_help_lists_every_command_in_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    for section, entries in cli.COMMANDS.items():
        assert f"{section}:" in said
        assert all(f"\n  {name} " in said for name in entries)


@pytest.mark.parametrize("name", ["status", "logs", "config", "inventory"])
def test_a_command_does_not_pay_for_the_imports_of_others(name: str) -> None:
    said = subprocess.check_output(
        [sys.executable, "-X", "importtime", "-m", "cluster", name, "--help"],
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert imported & set(HEAVY) == set()


def confirmed(monkeypatch: pytest.MonkeyPatch, *, typed: str | None, said: str = "") -> None:
    stdin = io.StringIO(f"{typed}\n")
    monkeypatch.setattr(stdin, "isatty", lambda: typed is not None)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setenv("CONFIRM", said)
    command.confirm("remove it", since="data would be lost", fix="CONFIRM=yes")


def test_what_cannot_be_taken_back_needs_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed(monkeypatch, typed="yes")
    confirmed(monkeypatch, typed=None, said="yes")
    with pytest.raises(Refusal, match=r"^not confirmed: nothing was touched$"):
        confirmed(monkeypatch, typed="y")
    with pytest.raises(Refusal, match="CONFIRM: expected yes, since data would be lost, found"):
        confirmed(monkeypatch, typed=None, said="no")


REFUSED = [
    # the command line, what its one line says
    ("backup --keep 0", "KEEP: expected how many backups to keep, 1 or more, or numbers for last"),
    ("backup-verify --from nowhere", "FROM: expected a backup, a directory with manifest.json"),
    ("restore --from nowhere", "FROM: expected a backup, a directory with manifest.json"),
    ("recover --replica 9", "REPLICA: expected one of 0, 1, 2, found 9"),
    ("recover --replica 1", "recover: expected a TigerBeetle cluster, found the EMULATOR"),
    ("upgrade 0.17.9", "upgrade: expected a TigerBeetle cluster, found the EMULATOR"),
    ("migrate", "FROM: expected an inventory, or CLUSTER_ID@IP:PORT,IP:PORT, found nothing"),
    ("logs --replica 7", "REPLICA: expected one of 0, 1, 2, found 7"),
    ("status --inventory nowhere.py", "INVENTORY: expected inventories/emulator.py"),
    ("planned-stop stop", "STATSD: expected IP:PORT of the collector, found nothing"),
    ("compose-tb logs --container x", "CONTAINER: expected one of tigerbeetle-0, tigerbeetle-1"),
    ("download", "SHA256_X86_64: expected a recorded checksum, found nothing"),
    ("init-env --out x.env", "x.env: expected a path that git ignores, since the file holds"),
    ("audit --run nowhere", "run: expected an id such as"),
    ("check --run nowhere", "run: expected an id such as"),
    ("compare a b", "run: expected an id such as"),
    ("gate nowhere.toml", "nowhere.toml: [Errno 2] No such file"),
    ("workload --cluster-id 1", "expected only together with --addresses"),
]


@pytest.mark.parametrize(("line", "says"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_command_that_refuses_touches_nothing_and_says_why(
    line: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # it is this process's
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVENTORY", "inventories/emulator.py")
    for variable in ("LU_CFG_TIGERBEETLE_DATA_DIR", "BACKUP_DIR", "LOADTESTS_RUNS"):
        monkeypatch.setenv(variable, str(tmp_path / "there"))
    assert cli.main(line.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: ")
    assert says in told
    assert not (tmp_path / "there").exists()
