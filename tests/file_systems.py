"""File systems of a test's own, in a file each: small ones, made and mounted as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Sparse: it takes what is written into it.
SIZE = 40 << 30
_TIMEOUT_S = 120


@contextmanager
def xfs(size: int = SIZE) -> Iterator[Path]:
    """An XFS, whose files can be cloned. Skips where this machine cannot make one."""
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip("needs root and mkfs.xfs (xfsprogs), to mount a file system of its own")
    # A short path: supervisor's socket must fit into 108 bytes.
    with tempfile.TemporaryDirectory(prefix="xfs-") as directory:
        image, place = Path(directory) / "image", Path(directory) / "m"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.xfs", "-q", str(image))
        mounted = _run("mount", "-o", "loop", str(image), str(place), check=False)
        if mounted.returncode != 0:
            pytest.skip(f"this machine mounts no XFS from a file: {mounted.stderr.strip()}")
        try:
            yield place
        finally:
            _run("umount", str(place))


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, capture_output=True, timeout=_TIMEOUT_S, check=check)
