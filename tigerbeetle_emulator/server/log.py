"""What the emulator tells: through `logging`, under the logger `tigerbeetle_emulator`.

A program that configures no logging sees the warnings on stderr, as with any library, and pytest
shows them with the test that failed. The command line writes every line in the genuine server's
style, so that one parser reads both.
"""

from __future__ import annotations

import logging
import time

NAME = "tigerbeetle_emulator"


def logger(scope: str = "") -> logging.Logger:
    """The logger of one part of the server, named as the genuine server names its own."""
    return logging.getLogger(f"{NAME}.{scope}" if scope else NAME)


class GenuineStyle(logging.Formatter):
    """One line: `2026-11-23 02:03:22.581Z info(main): 0: ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, and the traceback behind it where there is one."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
        stamp = f"{moment}.{int(record.msecs):03}Z"
        level, scope = record.levelname.lower(), record.name[len(NAME) + 1 :]
        where = f"{level}({scope})" if scope else level
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{stamp} {where}: {record.getMessage()}{trace}"


def to_stderr(level: int) -> None:
    """Write all lines from a level up to stderr: what the command line does."""
    handler = logging.StreamHandler()
    handler.setFormatter(GenuineStyle())
    top = logger()
    top.handlers, top.propagate = [handler], False
    top.setLevel(level)
