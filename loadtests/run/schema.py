"""The published JSON schema of a run's files: ``python -m loadtests.run.schema`` writes it anew."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import BaseModel

from cluster import REPOSITORY
from loadtests.run.result import Audit, Manifest, Result

PATH = REPOSITORY / "docs" / "load-result.schema.json"
FILES: dict[str, type[BaseModel]] = {
    "run.json": Manifest,
    "result.json": Result,
    "audit.json": Audit,
}


def build() -> dict[str, Any]:
    """One schema for each file of a run's directory."""
    return {"files": {name: model.model_json_schema() for name, model in FILES.items()}}


def main() -> int:
    """The program."""
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")
    print(PATH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
