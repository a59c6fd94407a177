"""The monitoring's YAML files, read. PyYAML comes with yamllint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]


def read(path: Path) -> Any:
    """One YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def write(document: Any) -> str:
    """As YAML."""
    return str(yaml.safe_dump(document))


def parse(text: str) -> Any:
    """A YAML document in a string."""
    return yaml.safe_load(text)
