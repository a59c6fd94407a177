"""Where a benchmark's figures go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tell(result: Mapping[str, Any], path: Path | None) -> None:
    """Print the figures as JSON, and store them in the file if one is asked for."""
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n")
