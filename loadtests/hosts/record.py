"""The workers' records, brought from where they were written to the run's directory here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO

from cluster.config.servers import Host
from cluster.refusal import last_line
from cluster.runtimes import ssh
from loadtests.client.records import ACCOUNT, RECORD
from loadtests.hosts import units

#: File names begin with one of these; a file is whole lines of so many bytes.
LINES = {"record-": RECORD.itemsize, "accounts-": ACCOUNT.itemsize}
#: 100 GB over a line of 250 Mbit/s.
TIMEOUT_S = 3600.0


def bring(host: Host, run: str, to: Path) -> int:
    """Bring what is not here yet; the bytes. A file that grows is brought up to where it was.

    Safe to repeat, and while it grows: a record is only written to at its end. Raises SshError.
    """
    place, brought = units.directory(run), 0
    listed = ssh.run(host, f"cd {place} 2>/dev/null && stat -c '%s %n' *.bin 2>/dev/null; true")
    for size, name in map(str.split, listed.stdout.splitlines()):
        if not name.startswith(tuple(LINES)) or "/" in name:
            continue
        file = to / name
        have = file.stat().st_size if file.is_file() else 0
        wanted = int(size)
        if wanted > have:
            _append(host, f"{place}/{name}", file, have, wanted)
            brought += wanted - have
    return brought


def end_whole(run: Path) -> list[str]:
    """Cut off a last line that a killed worker has not finished; the names of such files.

    The audit reads lines. That some are missing it finds by their count.
    """
    cut = []
    for file in sorted(run.glob("*.bin")):
        line = next((n for name, n in LINES.items() if file.name.startswith(name)), 1)
        rest = file.stat().st_size % line
        if rest:
            with file.open("r+b") as torn:
                torn.truncate(file.stat().st_size - rest)
            cut.append(file.name)
    return cut


def _append(host: Host, there: str, file: Path, have: int, wanted: int) -> None:
    """Bring the bytes from ``have`` to ``wanted``. Raises SshError, with what has come kept."""
    asked = f"tail -c +{have + 1} {shlex.quote(there)} | head -c {wanted - have}"
    script = f"echo {shlex.quote(ssh.MARK)}; {ssh.line(host, asked)}"
    with tempfile.TemporaryFile() as said, file.open("ab") as here:
        process = subprocess.Popen(
            [*ssh.shared(host), script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        too_long = threading.Timer(TIMEOUT_S, process.kill)
        too_long.start()
        try:
            with process:
                if process.stdout and _is_marked(process.stdout):
                    shutil.copyfileobj(process.stdout, here, 1 << 20)
        finally:
            too_long.cancel()
            process.kill()
        here.flush()
        got = file.stat().st_size
        if got != wanted:
            said.seek(0)
            why = last_line(said.read().decode(errors="replace"))
            raise ssh.SshError(
                f"{host.place}: expected {wanted:,} bytes of {there}, found {got:,}: {why}. "
                "Fix: check the server and the network"
            )


def _is_marked(printed: IO[bytes]) -> bool:
    """Whether the command begins here, past what a login has printed."""
    return any(line == f"{ssh.MARK}\n".encode() for line in iter(printed.readline, b""))
