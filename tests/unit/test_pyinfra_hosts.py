"""An inventory read without pyinfra is what pyinfra reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY
from cluster.config import PREFIX, pyinfra_hosts
from tests.unit.test_servers import env_text

INVENTORIES = sorted(
    file
    for file in (REPOSITORY / "inventories").glob("*.py")
    if file.name != "production.example.py"  # tried with an env file, below
)
BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def without_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def by_pyinfra(file: Path, *given: str, cwd: Path = REPOSITORY) -> list[tuple[str, Any]]:
    done = subprocess.run(
        [BIN / "pyinfra", *given, str(file), "debug-inventory", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return [(host["name"], host["data"]) for host in json.loads(done.stdout)]


def read_here(file: Path, cwd: Path = REPOSITORY, **given: Any) -> list[tuple[str, Any]]:
    hosts = pyinfra_hosts.read(file, cwd=cwd, given=given)
    return [(host.name, json.loads(json.dumps(host.data))) for host in hosts]


@pytest.mark.parametrize("file", INVENTORIES, ids=lambda file: file.stem)
def test_every_inventory_is_read_as_pyinfra_reads_it(file: Path) -> None:
    found = read_here(file)
    assert found
    assert found == by_pyinfra(file)


def test_the_example_for_servers_is_read_as_pyinfra_reads_it(tmp_path: Path) -> None:
    env_file = tmp_path / "production.env"
    env_file.write_text(env_text())
    env_file.chmod(0o600)
    example = (REPOSITORY / "inventories" / "production.example.py").read_text()
    copy = tmp_path / "production.py"
    copy.write_text(example.replace("env/production.env", str(env_file)))
    found = read_here(copy, bootstrap="yes")
    assert len(found) == 3
    assert found == by_pyinfra(copy, "--data", "bootstrap=yes")


#: Groups that overlap and contradict one another, hosts with and without data, names that are none.
SHOP = """
import os as system
from collections import OrderedDict

_hidden = ["never"]
number, sentence = 7, "no group"
mixed = [1, "two"]
databases = ([("db0", {"size": "own"}), "db1", "@ssh/db2"], {"kind": "database", "size": "group"})
watched = ["db1", ("web0", {"kind": "own", "late": 1})]
backends = ([("db0", {"late": 2})], {"size": "later group"})
here = ["@local"]
"""
SHOP_WITH_ALL = SHOP + 'all = ([("db0", {"late": 3}), "db1", "other"], {"zone": "a"})\n'
GROUP_DATA = {
    "group_data/all.py": 'import os\nfrom pathlib import Path\nzone = "cwd"\nzones = [1, 2]\n',
    "group_data/databases.py": 'kind = "by file"\nonly_here = True\n_private = 1\n',
    "inventories/group_data/all.py": 'zone = "beside"\n',
    "inventories/group_data/shop.py": '__all__ = ["stem"]\nstem = 1\nnot_this = 2\n',
    "inventories/group_data/watched.py": "late = 4\nsize = 5\n",
    "inventories/group_data/@local.py": 'here = "this machine"\n',
    "inventories/group_data/nobody.py": "x = 1\n",
    "inventories/group_data/notes.txt": "not python",
}


@pytest.mark.parametrize("text", [SHOP, SHOP_WITH_ALL], ids=["groups", "all"])
@pytest.mark.parametrize("given", [{}, {"size": "given", "zone": "given"}], ids=["plain", "given"])
def test_groups_and_group_data_are_read_as_pyinfra_reads_them(
    tmp_path: Path, text: str, given: dict[str, str]
) -> None:
    for name, content in GROUP_DATA.items() | {("inventories/shop.py", text)}:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    shop = tmp_path / "inventories" / "shop.py"
    options = [f"--data={key}={value}" for key, value in given.items()]
    assert read_here(shop, tmp_path, **given) == by_pyinfra(shop, *options, cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("hosts = nowhere", "NameError: name 'nowhere' is not defined"),
        ("hosts = [(", "SyntaxError: '(' was never closed"),
        ("import sys; sys.exit('no: it is Sunday')", "no: it is Sunday"),
        ("import sys; print('error: X', file=sys.stderr); sys.exit(2)", "error: X"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_file_that_does_not_run_says_so_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "shop.py"
    file.write_text(text)
    with pytest.raises(pyinfra_hosts.Unreadable) as refused:
        pyinfra_hosts.read(file, cwd=tmp_path)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("file", INVENTORIES, ids=lambda file: file.stem)
def test_reading_an_inventory_starts_and_imports_nothing_heavy(file: Path) -> None:
    """It comes before every command: neither pyinfra, nor the client, nor what draws tables."""
    program = (
        "import sys, subprocess\n"
        "subprocess.Popen = None\n"
        "from cluster.config import inventory\n"
        f"inventory.read({str(file)!r})\n"
        "heavy = {'pyinfra', 'gevent', 'tigerbeetle', 'numpy', 'rich', 'jinja2', 'psutil'}\n"
        "print(*sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=REPOSITORY
    )
    assert (done.stderr, done.stdout) == ("", "\n")
