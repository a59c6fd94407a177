"""What is brought to a load host: the locked environment, and our own code.

Each is a folder under a name of its content, packed here, so that a host needs no package index, no
pip and no compiler, and gets each once. Nobody writes to it there.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cluster import REPOSITORY
from cluster.refusal import Failed, last_line
from loadtests.hosts.observed import PLATFORMS, Observed

#: Where bundles are, on a load host.
PLACE = "/usr/local/lib/wallet-load"
#: Of the repository: what a worker runs, and nothing that holds a secret.
ROOMS = ("cluster", "loadtests", "tigerbeetle_emulator")
_KINDS = (".py", ".toml", ".j2")
_CARRIED = REPOSITORY / "files" / "load" / "carried.py"
_KEPT = REPOSITORY / ".uv" / "load"
_INSTALL_TIMEOUT_S = 3600
_PRINT_TIMEOUT_S = 120


@dataclass(frozen=True)
class Bundle:
    """A folder on a load host, and what makes the packed one here."""

    name: str
    _pack: Callable[[Path], None]

    @property
    def place(self) -> str:
        """The folder there."""
        return f"{PLACE}/{self.name}"

    def packed(self) -> Path:
        """Its file here, made where there is none yet. Raises Failed."""
        file = _KEPT / f"{self.name}.tar.gz"
        if not file.is_file():
            _KEPT.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=_KEPT) as beside:  # links are made in one system
                partial = Path(beside) / "packed"
                self._pack(partial)
                partial.replace(file)
        return file


def wanted(seen: Observed) -> tuple[Bundle, Bundle]:
    """The environment for this host's Python and processor, and our code. Raises Failed."""
    return _environment(seen.python, PLATFORMS[seen.machine]), _code()


def unpack(bundle: Bundle, packed: str, python: str) -> str:
    """The shell line that makes the folder there from the packed one: whole, or not at all.

    Compiled now: a worker may not write there, and each would compile at its start. Bundles that
    were brought before go, unless a worker runs.
    """
    kind, part = bundle.name.partition("-")[0], f"{bundle.place}.part"
    steps = [
        f"rm -rf {part}",
        f"mkdir {part}",
        f"tar -xzf {shlex.quote(packed)} -C {part} --no-same-owner",
        f"{shlex.quote(python)} -m compileall -q -j 0 {part} >/dev/null 2>&1; true",
        f"mv -T {part} {bundle.place}",
        f"rm {shlex.quote(packed)}",
    ]
    others = f"find {PLACE} -maxdepth 1 -name '{kind}-*' ! -name {bundle.name}"
    running = "systemctl list-units --plain --no-legend 'wallet-load-*' | grep -q ."
    tidy = f"{running} || {others} -exec rm -rf {{}} +"
    return f"set -e; {'; '.join(steps)}; {tidy}"


@cache
def _environment(python: str, platform: str) -> Bundle:
    made_of = f"{_carry('--print', timeout_s=_PRINT_TIMEOUT_S)}\n{python} {platform}"

    def pack(to: Path) -> None:
        with tempfile.TemporaryDirectory(dir=_KEPT) as folder:
            _carry(folder, python, platform, timeout_s=_INSTALL_TIMEOUT_S)
            with tarfile.open(to, "w:gz", compresslevel=3) as archive:
                archive.add(folder, arcname=".", filter=_kept)

    return Bundle(f"env-{_mark(made_of.encode())}", pack)


@cache
def _code() -> Bundle:
    files = sorted(
        file
        for room in ROOMS
        for file in (REPOSITORY / room).rglob("*")
        if file.suffix in _KINDS and "__pycache__" not in file.parts
    )
    contents = {str(file.relative_to(REPOSITORY)): file.read_bytes() for file in files}

    def pack(to: Path) -> None:
        with tarfile.open(to, "w:gz") as archive:
            for name, content in contents.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))

    return Bundle(f"code-{_mark(repr(contents).encode())}", pack)


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Readable by the worker's user; nothing that this machine's Python has compiled."""
    if "__pycache__" in entry.name:
        return None
    entry.mode |= 0o444 | (0o111 if entry.isdir() else 0)
    return entry


def _carry(*arguments: str, timeout_s: float) -> str:
    """Ask ``files/load/carried.py``, a program of its own. Raises Failed."""
    done = subprocess.run(
        [sys.executable, str(_CARRIED), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise Failed(
            "load hosts",
            expected="the packages of uv.lock for them",
            found=last_line(done.stderr),
            fix="see that this machine reaches its package index",
        )
    return done.stdout


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
