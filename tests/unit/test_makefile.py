"""The Makefile serves GNU Make 3.81 (macOS) and any sh, and quotes what a person gives it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import pytest

from cluster import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text()
#: Of the Makefile itself: without a space, or words on purpose.
OWN = {"MAKE", "PYTHON", "PYTEST", "COMPOSE", "INSTALLED", "MAKEFILE_LIST", "LOAD_OPTIONS"}
OWN |= {"GIVEN_INVENTORY"}  # quoted where it is made
WORDS = {"HOSTS", "LOAD"}
#: What came with 3.82, 4.0 and later, as their NEWS tell.
NEWER = {
    ".ONESHELL": r"^\.ONESHELL",
    ".SHELLFLAGS": r"\.SHELLFLAGS",
    ".RECIPEPREFIX": r"\.RECIPEPREFIX",
    "private": r"\bprivate\s+\w+\s*[:?+]?=",
    "undefine": r"^\s*(override\s+)?undefine\b",
    "define =": r"^\s*define\s+\S+\s*[:?+!]*=",
    "!=": r"^\s*\w+\s*!=",
    "::=": r"::=",
    ":::=": r":::=",
    "file": r"\$\(file ",
    "guile": r"\$\(guile ",
    "let": r"\$\(let ",
    "intcmp": r"\$\(intcmp ",
    "load": r"^-?load\s",
    "&:": r"&:",
    ".EXTRA_PREREQS": r"\.EXTRA_PREREQS",
    ".NOTINTERMEDIATE": r"\.NOTINTERMEDIATE",
    ".WAIT": r"\.WAIT",
    "output-sync": r"--output-sync",
    "wildcards that sort": r"\$\(wildcard ",
    "bash": r"^SHELL\b|\[\[|<<<|<\(|pipefail",
}


def newer(makefile: str) -> list[str]:
    return [name for name, form in NEWER.items() if re.search(form, makefile, re.MULTILINE)]


def test_nothing_newer_than_make_3_81_is_used_and_no_shell_of_its_own() -> None:
    assert newer(MAKEFILE) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (".SHELLFLAGS := -eu -o pipefail -c", ".SHELLFLAGS"),
        ("NOW != date", "!="),
        ("a b &: c", "&:"),
        ("SHELL := bash", "bash"),
    ],
)
def test_what_is_newer_is_found(line: str, name: str) -> None:
    assert name in newer(line)


def unquoted(makefile: str) -> list[str]:
    """Variables that a recipe hands to the shell bare."""
    recipes = re.findall(r"^(?:\t|LOAD_OPTIONS =).*(?:\\\n.*)*", makefile, re.MULTILINE)
    bare = {name for recipe in recipes for name in re.findall(r"(?<!\$)\$\((\w+)\)", recipe)}
    for recipe in recipes:
        for condition in re.findall(r"\$\(filter \w+,\$\((\w+)\)\)", recipe):
            bare.discard(condition)
    return sorted(bare - OWN - WORDS)


def test_every_variable_is_quoted() -> None:
    assert unquoted(MAKEFILE) == []


def test_a_bare_variable_is_found() -> None:
    assert unquoted("a:\n\t@b $(if $(FROM),--from $(FROM)) $(call quoted,TO)\n") == ["FROM"]


ODD = "a b'c\"d;e"
GIVEN = [
    ("quickstart", "INVENTORY"),
    ("test-long", "BUDGET_S"),
    ("init-env", "OUT"),
    ("init-env", "PORT"),
    ("upgrade", "TO"),
    ("migrate", "FROM"),
    ("migrate", "TO"),
    ("down", "AWAY"),
    ("logs", "REPLICA"),
    ("verify", "INVENTORY"),
    ("compose-tb-logs", "CONTAINER"),
    ("doctor", "INVENTORY"),
    ("backup", "KEEP"),
    ("backup", "WAY"),
    ("backup-verify", "FROM"),
    ("backup-verify", "RUN"),
    ("restore", "FROM"),
    ("restore", "COPY_OF"),
    ("restic", "RUN"),
    ("recover", "REPLICA"),
    ("planned-stop", "REPLICA"),
    *(("load", v) for v in ("USERS", "DURATION", "SHAPE", "RATE", "RUNS", "GATE", "PROCESSES")),
    *(("load", v) for v in ("SCENARIO", "PROFILE", "POPULATION")),
    ("load-ui", "SCENARIO"),
    ("capacity", "SCENARIO"),
    ("audit", "RUN"),
    ("report", "RUN"),
    ("capacity", "P99_MS"),
    ("capacity", "USERS"),
    ("load-compare", "A"),
    ("load-compare", "B"),
    ("load-history", "RUN"),
    ("load-history", "HISTORY"),
    ("resilience", "FAULT"),
    ("differential", "SEEDS"),
    ("differential", "STEPS"),
]


@pytest.mark.parametrize(("target", "variable"), GIVEN)
def test_a_value_reaches_its_program_as_one_word(target: str, variable: str) -> None:
    command = ["make", "-n", "-o", ".venv/.installed", target, f"{variable}={ODD}"]
    said = subprocess.check_output(command, cwd=REPOSITORY, text=True, timeout=30)
    words = [word for line in said.splitlines() for word in shlex.split(line)]
    assert ODD in words


PASTED = re.compile(r"\b(?:INVENTORY|FROM|TO|OUT)=\{(?!shlex\.quote)[a-z][^}]*\}")


def test_every_path_in_a_printed_command_is_quoted() -> None:
    code = [
        file
        for room in ("cluster", "loadtests", "monitoring", "tasks")
        for file in (REPOSITORY / room).rglob("*.py")
    ]
    assert PASTED.search('f"make down INVENTORY={chosen}"')
    assert [(str(f), found) for f in code if (found := PASTED.findall(f.read_text()))] == []


def test_every_variable_that_a_person_gives_is_tried() -> None:
    names = set(re.findall(r"call (?:quoted|option,[\w-]*),(\w+)", MAKEFILE))
    assert names - {variable for _, variable in GIVEN} - {"ROUNDS"} == set()


@pytest.mark.parametrize(
    ("typed", "exported", "seen"),
    [([], {}, ""), (["INVENTORY=a.py"], {}, "a.py"), ([], {"INVENTORY": "b.py"}, "b.py")],
)
def test_programs_are_told_of_an_inventory_only_where_a_person_has_named_one(
    typed: list[str], exported: dict[str, str], seen: str
) -> None:
    """Where nobody has, a run that is named says itself whose it is."""
    show = ["make", "--eval", 'show: ; @echo "[$$INVENTORY]"', "show", *typed]
    environ = {key: value for key, value in os.environ.items() if key != "INVENTORY"} | exported
    said = subprocess.check_output(show, cwd=REPOSITORY, env=environ, text=True, timeout=30)
    assert said == f"[{seen}]\n"
