"""Build .venv from uv.lock with nothing but a bare python3: no pip, no venv module, no uv.

Debian splits pip and venv off python3, so this fetches one pinned uv wheel from the package index,
checks it against the sha256 below, and lets uv do the rest; uv in turn checks every package against
uv.lock. Standard library only, and Python 3.8 suffices: uv brings a newer Python if none is found.

Usage: python3 files/bootstrap.py   (called by make; safe to repeat)
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

UV_VERSION = "0.13.9"

#: (system, machine) -> (wheel, sha256), as the index lists them. On Linux the static (musl) build,
#: which runs on every distribution.
WHEELS = {
    ("Linux", "x86_64"): (
        "uv-0.13.9-py3-none-musllinux_1_1_x86_64.whl",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("Linux", "aarch64"): (
        "uv-0.13.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "x86_64"): (
        "uv-0.13.9-py3-none-macosx_10_12_x86_64.whl",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
    ("Darwin", "arm64"): (
        "uv-0.13.9-py3-none-macosx_11_0_arm64.whl",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}

DEFAULT_INDEX = "https://pypi.org/simple"
REPOSITORY = Path(__file__).resolve().parent.parent
TIMEOUT_S = 60
SYNC_TIMEOUT_S = 3600  # 200 MB over the slowest line


class BootstrapError(Exception):
    """Why the environment could not be built, in one line with the fix."""


def index_url(environ: dict[str, str]) -> str:
    """The package index that uv and pip users configure, else PyPI; without a trailing slash."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    return next(filter(None, map(environ.get, names)), DEFAULT_INDEX).rstrip("/")


def wheel_for(system: str, machine: str) -> tuple[str, str]:
    """(wheel file name, sha256) for a platform. Raises BootstrapError where there is none."""
    try:
        return WHEELS[system, machine]
    except KeyError:
        known = ", ".join(" ".join(key) for key in WHEELS)
        raise BootstrapError(
            f"uv: expected one of {known}, found {system} {machine}. "
            f"Fix: install uv {UV_VERSION} yourself and run `uv sync --locked --all-extras`."
        ) from None


def download_wheel(index: str, name: str, sha256: str) -> bytes:
    """The wheel's bytes, found on the index's page and checked. Raises BootstrapError."""
    page_url = f"{index}/uv/"
    page = _get(page_url).decode("utf-8", "replace")
    links = re.findall(r'href="([^"]+)"', page)
    href = next((link for link in links if link.split("#")[0].endswith("/" + name)), None)
    if href is None:
        raise BootstrapError(
            f"{page_url}: expected a link to {name}, found {len(links)} others. "
            "Fix: set UV_DEFAULT_INDEX to an index that has it."
        )
    wheel = _get(urllib.parse.urljoin(page_url, href.split("#")[0]))
    found = hashlib.sha256(wheel).hexdigest()
    if found != sha256:
        raise BootstrapError(
            f"{name}: expected sha256 {sha256}, found {found} in {len(wheel)} bytes. "
            "Fix: run again; if it persists, the index serves another file: do not use it."
        )
    return wheel


def install_uv(wheel: bytes, target: Path) -> None:
    """Write the uv program of a wheel to ``target``, executable, whole or not at all."""
    with zipfile.ZipFile(BytesIO(wheel)) as archive:
        program = archive.read(f"uv-{UV_VERSION}.data/scripts/uv")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(program)
    partial.chmod(partial.stat().st_mode | stat.S_IXUSR)
    partial.replace(target)


def _get(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "text/html, */*;q=0.5"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return bytes(response.read())
    except (OSError, ValueError) as error:
        raise BootstrapError(
            f"{url}: expected an answer, found {error}. "
            "Fix: check the network, or set UV_DEFAULT_INDEX to an index you can reach."
        ) from None


def main() -> int:
    """Fetch uv once, then make .venv equal to uv.lock. Returns uv's exit code."""
    uv = REPOSITORY / ".uv" / UV_VERSION / "uv"
    try:
        if not uv.exists():
            name, sha256 = wheel_for(platform.system(), platform.machine())
            print(f"Fetching {name}", file=sys.stderr)
            install_uv(download_wheel(index_url(dict(os.environ)), name, sha256), uv)
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # Compiled now: otherwise each program's start does it, where Python may write no bytecode.
    sync = [str(uv), "sync", "--locked", "--all-extras", "--compile-bytecode"]
    try:
        done = subprocess.run([*sync, "--directory", str(REPOSITORY)], timeout=SYNC_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        print(f"error: uv: expected its end within {SYNC_TIMEOUT_S} s, found none", file=sys.stderr)
        return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
