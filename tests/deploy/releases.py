"""Two genuine releases to upgrade between, and the older one's client.

The servers come from TIGERBEETLE_OLD_BIN and TIGERBEETLE_NEW_BIN. A client must not be newer than
the cluster, so the old release's own is installed beside the test.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.tigerbeetle import binary

OLD, NEW = os.environ.get("TIGERBEETLE_OLD_BIN", ""), os.environ.get("TIGERBEETLE_NEW_BIN", "")


def both_or_skip() -> tuple[str, str]:
    """The releases of the two servers."""
    if not (OLD and NEW):
        pytest.skip("no two releases: set TIGERBEETLE_OLD_BIN and TIGERBEETLE_NEW_BIN")
    return binary.release_of([OLD]), binary.release_of([NEW])


def install_client_or_skip(release: str, target: Path) -> Path:
    """``target``, with a release's client in it: a directory to go before the installed one."""
    uv = next(iter((REPOSITORY / ".uv").glob("*/uv")), "uv")
    wanted = f"tigerbeetle=={release}"
    try:
        done = subprocess.run(
            [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(target), wanted],
            capture_output=True,
            text=True,
            timeout=120,
        )
    except FileNotFoundError:
        pytest.skip("no uv to install the old client with: make .venv/.installed")
    if done.returncode != 0:
        pytest.skip(f"{wanted} not to be had from an index: {done.stderr.strip().splitlines()[-1]}")
    return target


def last_said(log: str) -> str:
    """The release that a replica's log last said that it runs."""
    return str(re.findall(r"info\(main\): release=(\S+)", log)[-1])
