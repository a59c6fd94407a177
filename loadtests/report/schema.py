"""The published JSON schema of a run's files: ``python -m cluster load-schema`` writes it anew."""

from __future__ import annotations

import json
from typing import Any

import click
from pydantic import BaseModel

from cluster import REPOSITORY
from loadtests.report.curve import CAPACITY, Capacity
from loadtests.run.result import Audit, Manifest, Result

PATH = REPOSITORY / "docs" / "load-result.schema.json"
FILES: dict[str, type[BaseModel]] = {
    "run.json": Manifest,
    "result.json": Result,
    "audit.json": Audit,
    CAPACITY: Capacity,
}


def build() -> dict[str, Any]:
    """One schema for each file of a run's directory."""
    return {"files": {name: model.model_json_schema() for name, model in FILES.items()}}


@click.command()
def main() -> None:
    """Write the JSON schema of a run's files, docs/load-result.schema.json."""
    PATH.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")
    print(PATH)
