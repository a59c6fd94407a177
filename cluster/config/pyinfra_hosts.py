"""The hosts of a pyinfra inventory file, each with its data, as pyinfra itself reads them.

Without pyinfra, whose import alone takes a second. A test holds this equal to what
``pyinfra INVENTORY debug-inventory --json`` prints.
"""

from __future__ import annotations

import ast
import inspect
import io
from collections import defaultdict
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: A group as an inventory file has it: hosts, or hosts and their data. A host likewise.
_Group = list[Any] | tuple[list[Any], dict[str, Any]]


class Unreadable(Exception):  # noqa: N818 - reads as what it is
    """A file that does not run to its end; ``str()`` is the last line of what it said."""


@dataclass
class Host:
    """One host: its name, its groups, in the order in which they give it data, and that data."""

    name: str
    groups: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def read(file: Path, *, cwd: Path, given: Mapping[str, Any] | None = None) -> list[Host]:
    """The hosts of an inventory file. ``given`` is what ``--data`` sets. Raises Unreadable.

    A host's data: what is given, else its own, else its last group's, else that of ``all``.
    """
    groups = {name: value for name, value in _run(file).items() if _is_group(name, value)}
    everyone, data_of_all = _parts(groups.pop("all", _names(groups)))
    groups.setdefault(file.stem, everyone)
    beside = _group_data(cwd, file.parent)
    data_of_all |= beside.pop("all", {})
    hosts = {name: Host(name) for name, _ in map(_parts, everyone)}
    own: dict[str, dict[str, Any]] = defaultdict(dict)
    data_of = {}
    for group, value in groups.items():
        members, data = _parts(value)
        data_of[group] = data | beside.get(group, {})
        for name, data in map(_parts, members):
            own[name] |= data
            if name in hosts:
                hosts[name].groups.append(group)
    for name, data in map(_parts, everyone):
        own[name] |= data
    for host in hosts.values():
        connector, _, argument = host.name.partition("/")
        if connector == "@local":
            host.groups.append(connector)
        host.data |= data_of_all
        for group in host.groups:
            host.data |= data_of.get(group, beside.get(group, {}))
        host.data |= {"ssh_hostname": argument} if connector == "@ssh" else {}
        host.data |= own[host.name] | dict(given or {})
    return list(hosts.values())


def calling_file() -> str:
    """The inventory file whose code has called our caller; pyinfra tells no host which it is."""
    return str(Path(inspect.stack(0)[2].filename).absolute())


def _run(file: Path) -> dict[str, Any]:
    """The names that a file has at its end: pyinfra runs these without a module around them."""
    names: dict[str, Any] = {"__file__": str(file)}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), names)  # noqa: S102
    except SystemExit as end:
        text = end.code if isinstance(end.code, str) else said.getvalue() or f"exit code {end.code}"
        raise Unreadable(text.strip().splitlines()[-1]) from None
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise Unreadable(text.strip().splitlines()[-1]) from error
    return names


def _is_group(name: str, value: object) -> bool:
    """Every list of hosts is a group, unless its name begins with an underscore."""
    if name.startswith("_") or not isinstance(value, list | tuple):
        return False
    members = value[0] if isinstance(value, tuple) else value
    return all(isinstance(member, str | tuple) for member in members)


def _parts(value: Any) -> tuple[Any, dict[str, Any]]:
    """A group or a host, and its data, which it need not have."""
    return (value[0], dict(value[1])) if isinstance(value, tuple) else (value, {})


def _names(groups: Mapping[str, _Group]) -> list[str]:
    """The names of all groups' hosts, each once."""
    members = (member for group in groups.values() for member in _parts(group)[0])
    return list(dict.fromkeys(_parts(member)[0] for member in members))


def _group_data(*directories: Path) -> dict[str, dict[str, Any]]:
    """Group → the data in its files, ``group_data/GROUP.py``; a later directory's wins."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for directory in dict.fromkeys(path.resolve() for path in directories):
        for file in (directory / "group_data").glob("*.py"):
            names = _run(file)
            public = names.get("__all__", names.keys() - _imported(file))
            found[file.stem] |= {
                name: names[name] for name in public if name in names and not name.startswith("__")
            }
    return found


def _imported(file: Path) -> set[str]:
    """What a file's import statements name: it is no data."""
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    imports = (node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    names = (alias for node in imports for alias in node.names)
    return {(alias.asname or alias.name).partition(".")[0] for alias in names}
