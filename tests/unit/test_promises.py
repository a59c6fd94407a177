"""What pages and helps promise in numbers and names is what the code has: codes, tables, words."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click
import pytest

from cluster import REPOSITORY, cli
from cluster.health import status
from loadtests import options
from loadtests.run import exit_codes
from loadtests.wallet.wallets import ASSETS, TransferCode
from monitoring import stack
from tests.monitoring import documents
from tests.resilience.faults import FAULTS
from tests.unit.test_tidy import TARGETS
from tigerbeetle_emulator import Faults
from tigerbeetle_emulator.command_line import start, verbs

DOCS = REPOSITORY / "docs"
TESTS = REPOSITORY / "tests"
CONTEXT = click.Context(cli.commands)
ALERTS = [
    rule
    for group in documents.read(stack.FILES / "rules" / "alerts.yml")["groups"]
    for rule in group["rules"]
]


def page(name: str) -> str:
    return (DOCS / name).read_text()


def rows(text: str, width: int) -> list[list[str]]:
    """The cells of every table row that has so many."""
    lines = [line.strip() for line in text.splitlines()]
    cells = [[c.strip() for c in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == width]


def section(name: str, title: str) -> str:
    """A page's part under one heading."""
    return page(name).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def said(pattern: str, text: str) -> str:
    """The first that it matches; nothing where there is none."""
    found = re.search(pattern, text, re.DOTALL)
    return found[0] if found else ""


def promised(text: str) -> dict[int, str]:
    """Exit code → its word, as in "exit code 0 healthy, 1 degraded"."""
    return {int(code): word for code, word in re.findall(r"\b(\d)`?:? (?:when )?([a-z]+)", text)}


def walk(group: click.Group, context: click.Context, of: str = "") -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{of}{name}", command
        if isinstance(command, click.Group):
            yield from walk(command, context, f"{name} ")


#: Of whatever judges a run.
CODES = {
    code for name, code in vars(exit_codes).items() if re.fullmatch(r"EXIT_(?!CODES)\w+", name)
}
COMMANDS = dict(walk(cli.commands, CONTEXT))


@pytest.mark.parametrize(
    "text",
    [
        str(COMMANDS["status"].help),
        said(r"It exits with .*?\.", page("cluster.md")),
        said(r"exit code 0 healthy[^\n]*", page("monitoring.md")),
        said(r"compose-tb status` with .*? \|", page("seed-commands.md")),
        str(COMMANDS["compose-tb"].help).partition("`status`")[2],
    ],
    ids=["help", "cluster.md", "monitoring.md", "seed-commands.md", "compose-tb"],
)
def test_the_exit_codes_of_status_are_those_of_its_verdicts(text: str) -> None:
    codes = {code: word for code, word in promised(text).items() if code != 2}
    assert codes == {code: verdict for verdict, code in status.EXIT_CODES.items()}


def test_the_exit_codes_of_a_load_are_in_its_page() -> None:
    codes = {int(row[0]) for row in rows(section("load.md", "Exit codes"), 2) if row[0].isdigit()}
    assert codes == CODES


@pytest.mark.parametrize("name", ["load", "gate"])
def test_the_help_of_what_judges_a_run_has_all_codes(name: str) -> None:
    codes = set(map(int, re.findall(r"\b(\d) [a-z]", str(COMMANDS[name].help))))
    assert codes == CODES


def test_no_page_promises_a_code_that_make_does_not_pass_on() -> None:
    """Make itself ends with 2 whatever a recipe ends with."""
    of_make = re.compile(rf"\bmake ({'|'.join(TARGETS)})\b.*(exits with|exit code) [013-9]")
    files = [REPOSITORY / "README.md", *DOCS.rglob("*.md")]
    found = [
        line for file in files for line in file.read_text().splitlines() if of_make.search(line)
    ]
    assert of_make.search("make load GATE=x   # for CI: exit code 3 when a threshold is missed")
    assert found == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_the_severity_of_an_alert_is_what_its_pages_say(alert: dict[str, Any]) -> None:
    name, severity = alert["alert"], alert["labels"]["severity"]
    runbook = (REPOSITORY / alert["annotations"]["runbook"]).read_text()
    assert f"`{name}` · {severity} · " in runbook
    tables = [row for row in rows(page("monitoring.md"), 3) if f"`{name}`" in row[0]]
    assert [row[1] for row in tables if row[1] in ("critical", "warning")] == [severity]


def test_every_fault_of_the_emulator_is_in_its_table_and_an_option() -> None:
    table = rows(section("emulator.md", "Faults on request"), 3)
    named = {field for row in table for field in re.findall(r"`(\w+)`", row[1])}
    assert named == {field.name for field in fields(Faults) if not field.name.startswith("_")}
    options_ = {
        o.replace("-", "_") for row in table for o in re.findall(r"--fault-([\w-]+)", row[0])
    }
    assert options_ == named


@pytest.mark.parametrize("option", sorted({*re.findall(r"`(--[a-z-]+)[=`]", page("emulator.md"))}))
def test_every_option_of_the_emulator_that_its_page_names_exists(option: str) -> None:
    known = {flag.name for flag in (*start.FLAGS, *verbs.FORMAT, *verbs.VERSION)}
    assert option in known


class Locust(argparse.ArgumentParser):
    """Takes what locust's parser takes for our options."""

    def add_argument(self, *names: Any, env_var: str = "", **more: Any) -> Any:
        more.pop("include_in_web_ui", None)
        return super().add_argument(*names, **more)


def test_every_option_of_a_load_that_a_page_names_exists() -> None:
    ours = Locust()
    options.add(ours)
    known = set(ours._option_string_actions) | {
        *("--headless", "--users", "--run-time", "--processes", "--csv", "--tags", "--help"),
        *("--master", "--worker", "--master-host", "--expect-workers"),  # locust's own
    }
    known |= {name for command in COMMANDS.values() for p in command.params for name in p.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page("load.md") + page("wallet-model.md")))
    assert named - known == set()


def test_the_wallet_model_s_tables_are_the_code_s() -> None:
    assets = rows(section("wallet-model.md", "Assets are ledgers"), 5)
    found = [(a.symbol, str(a.ledger), str(a.scale)) for a in ASSETS]
    assert [tuple(row[:3]) for row in assets if row[1].isdigit()] == found
    transfers = rows(section("wallet-model.md", "Transfers"), 4)
    codes = {row[1]: int(row[0]) for row in transfers if row[0].isdigit()}
    assert codes == {k.lower(): v for k, v in vars(TransferCode).items() if k.isupper()}
    weights = {
        re.sub(r",? (then|and) ", "_and_", row[0]): int(row[1])
        for row in rows(section("wallet-model.md", "Actions"), 4)
        if row[1].isdigit()
    }
    # In a process of its own: locust patches the one that imports it.
    names = "[task.__name__ for task in WalletTasks.tasks]"
    script = f"from loadtests.wallet.users import WalletTasks; print(*{names})"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert weights == Counter(done.stdout.decode().split())


def test_every_check_of_the_audit_is_in_its_table() -> None:
    proof = REPOSITORY / "loadtests" / "proof"
    code = "".join(file.read_text() for file in proof.glob("*.py"))
    checks = set(re.findall(r'\bjudged\("([a-z ]+)"', code)) | {"record complete"}
    assert checks == {row[0] for row in rows(section("load.md", "The audit"), 2)} - {"check", "---"}


def test_every_suite_is_in_the_table_of_tests() -> None:
    suites = {f"`tests/{d.parent.name}`" for d in TESTS.glob("*/__init__.py")}
    assert suites == {row[0] for row in rows(page("tests.md"), 2) if row[0].startswith("`tests/")}


def test_every_variable_of_the_environment_is_explained() -> None:
    """Beside the env file's: what our programs read by name."""
    read: set[str] = set()
    for room in ("cluster", "tasks", "monitoring", "loadtests"):
        for file in (REPOSITORY / room).rglob("*.py"):
            text = file.read_text()
            read |= set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', text))
            read |= set(re.findall(r'_named\("([A-Z_]+)"', text))
            read |= set(re.findall(r'_VARIABLE = "([A-Z_]+_PORTS)"', text))
    images = (REPOSITORY / "docker-compose.monitoring.yaml").read_text()
    read |= set(re.findall(r"\$\{(\w+):-", images)) - {"MONITORING_PROMETHEUS_PORT"}  # one of PORTS
    read -= {"PATH", "LOCUST_PROCESSES", "LOADTESTS_CLOCK_OFFSET_MS"}
    read = {name for name in read if not name.endswith("_SETTINGS")}  # what runs, told by ourselves
    table = rows(section("configuration.md", "What else the environment sets"), 2)
    named = {v for row in table for v in re.findall(r"`([A-Z_]{5,})`", row[0])}
    assert {"BACKUP_DIR", "CONFIRM", "TIGERBEETLE_BIN"} <= read
    assert named == read


def test_every_key_of_the_doctor_is_in_a_test() -> None:
    """Its first table is of containers: caused there, or recognised in what was recorded."""
    table = section("docker.md", "Troubles").partition("On other inventories")[0]
    keys = [key for row in rows(table, 2) for key in re.findall(r"`([a-z-]+)`", row[0])]
    files = [
        file for room in ("docker", "unit", "monitoring") for file in (TESTS / room).glob("*.py")
    ]
    tests = "".join(file.read_text() for file in files)
    assert len(keys) > 30
    assert [key for key in keys if f'"{key}"' not in tests] == []


def test_what_a_page_gives_as_a_fault_is_what_pytest_understands() -> None:
    files = [REPOSITORY / "Makefile", *REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")]
    given = [each for file in files for each in re.findall(r'FAULT="([^"]+)"', file.read_text())]
    names = [fault.name for fault in FAULTS]
    assert len(given) >= 3
    for each in given:
        words = each.split(" and ")  # a name's own words, such as "kill the primary", are none
        assert all(word.isalpha() for word in words), each
        assert any(all(word in name for word in words) for name in names), each
