"""Log lines in the genuine server's style, so that one parser reads both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone

# level, scope ("" for none), message
Log = Callable[[str, str, str], None]


def to_stderr(level: str, scope: str, message: str) -> None:
    """One line: `2026-11-23 02:03:22.581Z info(main): 0: ...`."""
    now = datetime.now(timezone.utc)
    stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03}Z"
    where = f"{level}({scope})" if scope else level
    sys.stderr.write(f"{stamp} {where}: {message}\n")
    sys.stderr.flush()


def silent(level: str, scope: str, message: str) -> None:
    """Log nothing: for a library in another program's tests."""
