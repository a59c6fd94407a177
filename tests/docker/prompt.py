"""The server's own prompt in a container, typed at as a person does: it wants a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import time

from cluster import config
from tests.docker.sandbox import DockerSandbox

REPL_WITHIN_S = 600
ASK_CURSOR = "\x1b[6n"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+Z \w+\([^\n]*\n?")


def repl(seed: DockerSandbox, *statements: str, until: str) -> str:
    """Type statements at the prompt, in a terminal as the REPL wants one; what it showed."""
    cluster = config.load(environ=seed.environ)
    line = (
        f"docker exec -it {seed.names[0]} /tigerbeetle repl --cluster=0 "
        f"--addresses={cluster.addresses}"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shlex.split(line), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as prompt:
        raw, pending = "", list(statements)
        deadline = time.monotonic() + REPL_WITHIN_S
        # One that has ended says no more: what it has said tells why.
        while (
            time.monotonic() < deadline
            and not re.search(until, _text(raw))
            and (prompt.poll() is None or select.select([ours], [], [], 0)[0])
        ):
            if not select.select([ours], [], [], 0.5)[0]:
                # Silent: the prompt is there, and has had its answer about the cursor. The client's
                # own log may have written behind it since.
                if pending and LOG_LINE.sub("", _text(raw)).rstrip().endswith(">"):
                    os.write(ours, pending.pop(0).encode() + b"\r")
            else:
                asked = raw.count(ASK_CURSOR)
                raw += os.read(ours, 65536).decode(errors="replace")
                for _ in range(raw.count(ASK_CURSOR) - asked):
                    os.write(ours, b"\x1b[1;1R")  # as a terminal answers
        prompt.terminate()
    os.close(ours)
    os.close(theirs)
    return _text(raw)


def _text(raw: str) -> str:
    """What was shown without the terminal's control sequences.

    Of the whole, not of each piece that was read: a sequence may be cut in two.
    """
    return CONTROL.sub("", raw)
