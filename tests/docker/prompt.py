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

REPL_WITHIN_S = 60
ASK_CURSOR = "\x1b[6n"
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
        shown, deadline, pending = "", time.monotonic() + REPL_WITHIN_S, list(statements)
        while time.monotonic() < deadline and not re.search(until, shown):
            if not select.select([ours], [], [], 0.5)[0]:
                # Silent: the prompt is there, and has had its answer about the cursor. The client's
                # own log may have written behind it since.
                if pending and LOG_LINE.sub("", shown).rstrip().endswith(">"):
                    os.write(ours, pending.pop(0).encode() + b"\r")
            else:
                raw = os.read(ours, 65536).decode(errors="replace")
                for _ in range(raw.count(ASK_CURSOR)):
                    os.write(ours, b"\x1b[1;1R")  # as a terminal answers
                shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
        prompt.terminate()
    os.close(ours)
    os.close(theirs)
    return shown
