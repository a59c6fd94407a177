"""Files that describe traffic, each found by its name and read into a model, mistakes by place."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.refusal import Refusal

SUFFIX = ".toml"


class Table(BaseModel):
    """One table of a file. A field's description says what is expected of its value."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Described(Table):
    """The whole of a file; its first line is for whoever chooses among several."""

    about: str = Field(min_length=1, max_length=90, description="a line of at most 90 characters")


Model = TypeVar("Model", bound=Described)


def names(folder: Path) -> list[str]:
    """Those that come with this repository."""
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))


def find(option: str, name: str, folder: Path, suffixes: tuple[str, ...] = (SUFFIX,)) -> Path:
    """The file that is named: one of the folder's by its stem, or any by its path.

    Raises Refusal.
    """
    named = Path(name)
    if named.suffix in suffixes and named.is_file():
        return named
    known = names(folder)
    if name in known:
        return folder / f"{name}{SUFFIX}"
    kinds = " or ".join(suffixes)
    raise Refusal(
        option,
        expected=f"one of {', '.join(known)}, or a file that ends in {kinds}{near(name, known)}",
        found=name,
        fix="`make load-scenarios` says what each is",
    )


def read(path: Path, model: type[Model]) -> Model:
    """What the file says. Raises Refusal, which names the place in it, and OSError."""
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as failure:
        errors = sorted(failure.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _mistake(path, model, dict(errors[0])) from None  # a typo is why another is missing
    except ValueError as error:  # no TOML, or no text
        fix = "correct it there"
        raise Refusal(str(path), expected="TOML", found=str(error), fix=fix) from None


def near(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as a question; or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _mistake(path: Path, model: type[BaseModel], error: dict[str, Any]) -> Refusal:
    """Pydantic's first error in our one line."""
    place = [str(part) for part in error["loc"]]
    known, expected = dict(model.model_fields), ""
    for part in place:
        if part not in known:
            break
        field = known[part]
        expected = field.description or expected
        inner = field.annotation
        is_table = isinstance(inner, type) and issubclass(inner, BaseModel)
        known = dict(getattr(inner, "model_fields", {})) if is_table else {}
    found = repr(error["input"])
    if error["type"] == "extra_forbidden":
        expected = f"one of {', '.join(known)}{near(place[-1], known)}"
        found = f"{place[-1]!r}, which is unknown"
        place.pop()
    elif error["type"] == "missing":
        found = "nothing"
    elif error["type"] == "value_error":
        expected = str(error["ctx"]["error"])
    return Refusal(
        " ".join([str(path), ".".join(place)]).rstrip(),
        expected=expected or error["msg"],
        found=found,
        fix="correct it there",
    )
