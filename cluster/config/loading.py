"""The one configuration: ``env/tigerbittle.env`` under the process environment, validated.

The result is a frozen ``Cluster`` (``model``) that keeps every rule (``rules``).
Whatever is wrong ends in one ``Refusal``, whose text is one line: variable, expected, found,
fix. Nothing is touched before this has passed.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError

from cluster import REPOSITORY
from cluster.config import rules
from cluster.config.model import PREFIX, Cluster, Replica
from cluster.refusal import Refusal, told

ENV_FILE = REPOSITORY / "env" / "tigerbittle.env"
REPLICA_KEY = re.compile(rf"{PREFIX}(\d+)_(CONTAINER_NAME|IP|PORT)")
#: A line that Compose reads as python-dotenv does: what is cleverer, they read in two ways.
_ALIKE = re.compile(
    r"""\s*(\#.*|(export\ +)?\w+=([^\s\#'"$`\\][^'"$`\\]*|'[^'\\]*'|"[^"$`\\]*")?(\s+\#.*)?\s*)?""",
    re.VERBOSE,
)

#: What ``repository`` reads from the same file.
NOT_OF_CLUSTER = (
    "BACKUP_TO",
    "BACKUP_PASSWORD_FILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
)

Model = TypeVar("Model", bound=BaseModel)


def read(env_file: Path = ENV_FILE, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Our variables: the file's, under those of the environment, as Compose merges them.

    Raises Refusal for an unreadable file, and for any name that nobody reads.
    """
    text = text_of(env_file)
    for number, line in enumerate(text.splitlines(), 1):
        if not _ALIKE.fullmatch(line):
            raise Refusal(
                f"{shown(env_file)}, line {number}",
                expected="KEY=value in plain, or one pair of quotes, which Compose reads alike",
                found=f"another form of {re.split('[=:]', line)[0].strip()}",
                fix="leave out '$', backslashes and further quotes; in single quotes '$' may stay",
            )
    in_file = {k: v for k, v in values_of(text).items() if k not in NOT_OF_CLUSTER}
    from_environ = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
    for key in (*in_file, *from_environ):
        _refuse_unknown(key, where=str(env_file) if key in in_file else "the environment")
    return {**in_file, **from_environ}


def text_of(env_file: Path) -> str:
    """What is in it. Raises Refusal for one that cannot be read."""
    try:
        return env_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            str(env_file),
            expected="a readable file of KEY=value lines",
            found=error,
            fix="restore it with `git checkout env/tigerbittle.env`"
            if env_file == ENV_FILE
            else "write it with `make init-env`, or correct the inventory's env_file",
        ) from None


def values_of(text: str) -> dict[str, str]:
    """The variables in an env file's text, as they stand there."""
    parsed = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {key: value or "" for key, value in parsed.items()}


def parse(
    settings: Mapping[str, str],
    check_place: Callable[[Cluster], None] = rules.check_one_machine,
    env_file: Path = ENV_FILE,
) -> Cluster:
    """Validate settings into a Cluster. Raises Refusal for the first rule that is broken.

    ``check_place`` adds the rules of where the replicas run; ``env_file`` is named in errors.
    """
    values = {key.removeprefix(PREFIX): value for key, value in settings.items()}
    indexes = sorted({int(m[1]) for key in settings if (m := REPLICA_KEY.fullmatch(key))})
    rules.check_replica_numbers(indexes)
    fix, replicas = f"set it in {shown(env_file)}", []
    for i in indexes:
        own = {k.removeprefix(f"{i}_"): v for k, v in values.items() if k.startswith(f"{i}_")}
        replicas.append(build(Replica, f"{PREFIX}{i}_", own | {"index": i}, fix))
    cluster = build(Cluster, PREFIX, values | {"replicas": tuple(replicas)}, fix)
    check_place(cluster)
    rules.check(cluster, values.get("ADDRESSES"))
    return cluster


def load(
    env_file: Path = ENV_FILE,
    environ: Mapping[str, str] = os.environ,
    check_place: Callable[[Cluster], None] = rules.check_one_machine,
) -> Cluster:
    """Read and parse; the files that it names are there. Raises Refusal."""
    settings = read(env_file, environ)
    try:
        cluster = parse(settings, check_place, env_file)
        rules.check_profile(cluster)
    except Refusal as refusal:
        in_file = read(env_file, {})
        changed = sorted(key for key in settings if settings[key] != in_file.get(key))
        raise _blamed(refusal, changed, shown(env_file)) from None
    return cluster


def _blamed(refusal: Refusal, changed: Sequence[str], file: str) -> Refusal:
    """The same, where the values of these names are not the file's: the environment has others."""
    what, expected, found, fix = refusal.what, refusal.expected, refusal.found, refusal.fix
    if what in changed:
        found = f"{found} in the environment"
        fix = f"correct it there, or `unset {what}` for the one in {file}"
    elif changed:
        fix = f"{fix}; the environment sets {', '.join(changed)}"
    return Refusal(what, expected=expected, found=found, fix=fix)


def load_or_exit() -> Cluster:
    """The Cluster, for what is no command, such as an inventory file: or the end of the program."""
    with told():
        return load()


def shown(env_file: Path) -> str:
    """An env file as a person names it: relative to the repository where it is inside."""
    is_inside = env_file.is_relative_to(REPOSITORY)
    return str(env_file.relative_to(REPOSITORY) if is_inside else env_file)


def _refuse_unknown(key: str, *, where: str) -> None:
    of_replica = [f.alias for f in Replica.model_fields.values() if f.alias]
    known = ["ADDRESSES", *(f.alias for f in Cluster.model_fields.values() if f.alias)]
    known += [f"{i}_{alias}" for i in range(max(rules.REPLICA_COUNTS)) for alias in of_replica]
    known = [f"{PREFIX}{name}" for name in known]
    if key in known or REPLICA_KEY.fullmatch(key):
        return
    near = difflib.get_close_matches(key, known, n=1)
    raise Refusal(
        key,
        expected=f"a known variable{f' (did you mean {near[0]}?)' if near else ''}",
        found=f"this name in {where}",
        fix="correct the name or remove the line",
    )


def build(model: type[Model], prefix: str, values: Mapping[str, object], fix: str) -> Model:
    """Let pydantic validate, and say what it says in our one line. Raises Refusal."""
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        error = failure.errors()[0]
        key = str(error["loc"][0])
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        known = f"a known setting ({', '.join(fields)})"
        found = "nothing" if error["type"] == "missing" else repr(error["input"])
        expected = fields[key].description if key in fields else known
        if error["type"] == "value_error":
            expected = str(error["ctx"]["error"])
        raise Refusal(f"{prefix}{key}", expected=expected, found=found, fix=fix) from None
