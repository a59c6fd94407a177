"""Build .venv from uv.lock with nothing but a bare python3: no pip, no venv module, no uv.

Debian splits pip and venv off python3, so this fetches one pinned uv wheel from the package index,
checks it against the sha256 below, and lets uv do the rest; uv in turn checks every package against
uv.lock. Standard library only, and Python 3.8 suffices: uv brings a newer Python if none is found.

Any network that pip has been told of serves: see pip_network.py.

Usage: python3 files/bootstrap.py   (called by make; safe to repeat)
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pip_network
from pip_network import BootstrapError

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

REPOSITORY = Path(__file__).resolve().parent.parent
SYNC_TIMEOUT_S = 3600  # 200 MB over the slowest line


def wheel_for(system: str, machine: str) -> tuple[str, str]:
    """(wheel file name, sha256) for a platform. Raises BootstrapError where there is none."""
    try:
        return WHEELS[system, machine]
    except KeyError:
        known = ", ".join(" ".join(key) for key in WHEELS)
        raise BootstrapError(
            f"uv: expected one of {known}, found {system} {machine}. "
            f"Fix: install uv {UV_VERSION} yourself, so that it is on PATH."
        ) from None


def download_wheel(name: str, sha256: str, net: dict[str, str]) -> bytes:
    """The wheel's bytes, from the first page that has it, and checked. Raises BootstrapError."""
    missed = []
    for page in pip_network.pages("uv", net):
        try:
            files = pip_network.listed(page, net)
            if name in files:
                break
            shown = pip_network.without_secret(page)
            missed.append(
                f"{shown}: expected a link to {name}, found {len(files)} others. "
                "Fix: set UV_DEFAULT_INDEX to an index that has it."
            )
        except BootstrapError as error:
            missed.append(str(error))
    else:
        raise BootstrapError(missed[0] if missed else "uv: expected an index, found PIP_NO_INDEX.")
    wheel = pip_network.get(files[name], net)
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


def uv_program(net: dict[str, str]) -> str:
    """The pinned uv: as fetched before, as on PATH, or fetched now. Raises BootstrapError."""
    uv = REPOSITORY / ".uv" / UV_VERSION / "uv"
    if uv.exists():
        return str(uv)
    on_path = shutil.which("uv")
    if on_path:
        command = [on_path, "--version"]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout
        if said.split()[1:2] == [UV_VERSION]:
            return on_path
    name, sha256 = wheel_for(platform.system(), platform.machine())
    print(f"Fetching {name}", file=sys.stderr)
    install_uv(download_wheel(name, sha256, net), uv)
    return str(uv)


def build(uv: str, net: dict[str, str]) -> None:
    """Make .venv equal to uv.lock. Raises BootstrapError, CalledProcessError, TimeoutExpired.

    uv.lock has the addresses of PyPI. From another index its packages are installed by their names,
    versions and sums alone; then uv sees that nothing is missing, and has nothing left to fetch.
    """

    def run(*arguments: str, env: dict[str, str]) -> None:
        command = [uv, *arguments, "--directory", str(REPOSITORY)]
        subprocess.run(command, env=env, timeout=SYNC_TIMEOUT_S, check=True)

    # Known to uv.lock alone; what pip has been told besides would be another lock for uv.
    locked = {name: value for name, value in net.items() if name not in pip_network.INDEX_VARIABLES}
    locked.update(UV_DEFAULT_INDEX=pip_network.LOCKED_INDEX, UV_PROJECT_ENVIRONMENT=".venv")
    if pip_network.is_elsewhere(net):
        packages = REPOSITORY / ".uv" / "packages.txt"
        packages.parent.mkdir(exist_ok=True)
        run("sync", "--locked", "--inexact", "--no-default-groups", "--quiet", env=locked)
        export = ["export", "--locked", "--offline", "--all-extras", "--no-emit-project", "--quiet"]
        run(*export, "--output-file", str(packages), env=locked)
        install = ["pip", "install", "--python", ".venv", "--require-hashes", "--requirement"]
        no_index = ["--no-index"] if net.get("PIP_NO_INDEX") else []
        # The sums decide, whichever index has the file.
        anywhere = {"UV_INDEX_STRATEGY": "unsafe-best-match", **net}
        run(*install, str(packages), *no_index, env=anywhere)
        locked["UV_OFFLINE"] = "true"
    # Compiled now: otherwise each program's start does it, where Python may write no bytecode.
    run("sync", "--locked", "--all-extras", "--compile-bytecode", env=locked)


def main() -> int:
    """Fetch uv once, then make .venv equal to uv.lock. Returns the exit code."""
    try:
        if os.statvfs(REPOSITORY).f_flag & getattr(os, "ST_NOEXEC", 0):
            raise BootstrapError(
                f"{REPOSITORY}: expected a file system that programs may run from, found one that "
                "is mounted noexec. Fix: clone the repository to another one."
            )
        if b"\r\n" in Path(__file__).read_bytes():
            raise BootstrapError(
                f"{REPOSITORY}: expected line ends of Unix (LF), found those of Windows (CRLF), "
                "with which no script runs. Fix: git ls-files -z | xargs -0 sed -i 's/\\r$//'"
            )
        net = pip_network.network(dict(os.environ))
        build(uv_program(net), net)
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(
            f"error: .venv: expected uv to build it, found its exit code {error.returncode}, with "
            "the reason above. Fix: correct that; another index is named by UV_DEFAULT_INDEX=URL",
            file=sys.stderr,
        )
        return error.returncode
    except subprocess.TimeoutExpired:
        print(f"error: uv: expected its end within {SYNC_TIMEOUT_S} s, found none", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename or REPOSITORY}: expected to write it and to run it, found "
            f"{error.strerror or error}. Fix: make room or the right to, or clone elsewhere.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
