"""The rooms of the product and their layers: no import goes up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

from cluster import REPOSITORY

#: Each room and those it stands on. It may import them, all that is below them, and itself.
STANDS_ON: dict[str, tuple[str, ...]] = {
    "cluster": (),
    "cluster.config": ("cluster",),
    "cluster.tigerbeetle": ("cluster.config",),
    "cluster.runtimes": ("cluster.tigerbeetle",),
    "cluster.checks": ("cluster.runtimes",),
    "cluster.health": ("cluster.checks",),
    "cluster.operate": ("cluster.health",),
    "cluster.servers": ("cluster.config",),  # the face for users' own inventories
    "cluster.cli": ("cluster.operate",),  # names the commands above it, and imports none
    "cluster.__main__": ("cluster.cli",),
    "monitoring": ("cluster.operate",),
    "tasks": ("monitoring", "loadtests.hosts"),
    "loadtests.client": ("cluster",),
    "loadtests.run": ("loadtests.client", "cluster.operate"),
    "loadtests.traffic": ("loadtests.run",),
    "loadtests.wallet": ("loadtests.traffic",),
    "loadtests.proof": ("loadtests.wallet",),
    "loadtests.report": ("loadtests.proof",),
    "loadtests.hosts": ("loadtests.client", "cluster.operate"),
    "loadtests": ("loadtests.report", "loadtests.hosts"),
    "tigerbeetle_emulator.protocol": (),
    "tigerbeetle_emulator.ledger": ("tigerbeetle_emulator.protocol",),
    "tigerbeetle_emulator.server": ("tigerbeetle_emulator.ledger",),
    "tigerbeetle_emulator": ("tigerbeetle_emulator.server",),
    "inventories": ("cluster.servers", "cluster.runtimes"),
    "deploy": ("tasks",),
    "benchmarks": ("loadtests", "tigerbeetle_emulator"),
    "tests": ("benchmarks", "deploy", "cluster.cli"),
}
#: Two libraries know nothing of a deployment, and the cluster uses a room of each:
#: (importer, imported).
ALLOWED = {
    # A ping is a message of TigerBeetle's protocol; the emulator has the only description of it.
    ("cluster.tigerbeetle.ping", "tigerbeetle_emulator.protocol"),
    # A migration reads and writes a whole ledger: columns through the official client.
    ("cluster.operate.migrate.plan", "loadtests.client"),
    ("cluster.operate.migrate.clusters", "loadtests.client"),
    ("cluster.operate.migrate.passes", "loadtests.client"),
    ("cluster.operate.migrate.command", "loadtests.client"),
}
#: Arrows that still go up. This list only shrinks.
PENDING: set[tuple[str, str]] = set()
MODULES_MAX = 16
PRODUCT = ("cluster", "loadtests", "monitoring", "tasks", "tigerbeetle_emulator")
FILES = sorted(
    file.relative_to(REPOSITORY)
    for place in (*PRODUCT, "benchmarks", "inventories", "deploy.py")
    for file in ((REPOSITORY / place).rglob("*.py") if "." not in place else [REPOSITORY / place])
)


def module_of(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room of a module, or of a name in it; None for what is not of this repository."""
    name = module
    while name and name not in STANDS_ON:
        name = name.rpartition(".")[0]
    return name or None


@cache
def below(room: str) -> frozenset[str]:
    """All rooms that a room may import."""
    return frozenset({room}).union(*(below(lower) for lower in STANDS_ON[room]))


def imports(file: Path, source: str) -> Iterator[str]:
    """Every name that a file imports: in functions and for type checkers, too."""
    package = ".".join(file.parent.parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def upward(file: Path, source: str) -> set[tuple[str, str]]:
    """The arrows of a file that go up: (importing module, imported room)."""
    module = module_of(file)
    allowed = below(room_of(module) or "")
    rooms = {room for name in imports(file, source) if (room := room_of(name))}
    return {(module, room) for room in rooms - allowed} - ALLOWED


def test_no_import_goes_up() -> None:
    found = {arrow for file in FILES for arrow in upward(file, (REPOSITORY / file).read_text())}
    assert found - PENDING == set()
    assert PENDING - found == set(), "mended: take them off the list"


@pytest.mark.parametrize(
    ("file", "line", "room"),
    [
        ("cluster/config/made_up.py", "import cluster.runtimes.ssh", "cluster.runtimes"),
        ("cluster/config/made_up.py", "from cluster import health", "cluster.health"),
        ("cluster/config/__init__.py", "from ..checks import firewall", "cluster.checks"),
        ("cluster/made_up/new.py", "from cluster.config import Cluster", "cluster.config"),
        ("cluster/tigerbeetle/log.py", "def f(): import tasks.backup", "tasks"),
        (
            "cluster/health/health.py",
            "if TYPE_CHECKING: import loadtests.run.runs",
            "loadtests.run",
        ),
        ("cluster/cli.py", "from monitoring import stack", "monitoring"),
        ("monitoring/stack.py", "from loadtests import search", "loadtests"),
        ("loadtests/client/ledger.py", "from loadtests.wallet import bank", "loadtests.wallet"),
        ("loadtests/run/runs.py", "from loadtests.options import add", "loadtests"),
        (
            "tigerbeetle_emulator/server/log.py",
            "import tigerbeetle_emulator",
            "tigerbeetle_emulator",
        ),
        ("tigerbeetle_emulator/embedded.py", "from cluster import REPOSITORY", "cluster"),
        ("tasks/backup.py", "import tests.clusters", "tests"),
    ],
)
def test_an_arrow_that_goes_up_is_found(file: str, line: str, room: str) -> None:
    assert upward(Path(file), line) == {(module_of(Path(file)), room)}


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("cluster/health/health.py", "from cluster.config import Cluster"),
        ("cluster/health/health.py", "import json, subprocess"),
        ("cluster/tigerbeetle/ping.py", "from tigerbeetle_emulator.protocol import wire"),
        ("tasks/monitoring.py", "from monitoring import stack"),
        ("loadtests/report/report.py", "from loadtests.run import runs"),
        ("tests/unit/test_layers.py", "from tigerbeetle_emulator import embedded"),
    ],
)
def test_an_arrow_that_goes_down_is_not(file: str, line: str) -> None:
    assert upward(Path(file), line) == set()


@pytest.mark.parametrize("folder", sorted({f.parent for f in FILES if f.parts[0] in PRODUCT}))
def test_a_folder_is_small_enough_to_be_read(folder: Path) -> None:
    """A folder that outgrows this has a second noun in it."""
    modules = [f for f in FILES if f.parent == folder and f.name != "__init__.py"]
    assert len(modules) <= MODULES_MAX
