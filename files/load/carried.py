"""Install what a worker of a load imports into a folder, for another machine's Python.

Every package is the one of uv.lock, by its hash, from whichever index this machine has been told
of; the other machine needs none. Nothing is built: there are wheels for what a worker imports.

Usage: python files/load/carried.py FOLDER PYTHON PLATFORM   (3.11 x86_64-manylinux_2_28)
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bootstrap
import pip_network

GROUPS = ("deploy", "load")
#: What only deploys and runs replicas.
SPARED = ("pyinfra", "supervisor", "prometheus-client")


def export(uv: str) -> str:
    """What a worker imports, with hashes, as pip reads it. Raises CalledProcessError."""
    command = [uv, "export", "--directory", str(bootstrap.REPOSITORY), "--locked", "--offline"]
    command += ["--quiet", "--no-default-groups", "--no-emit-project", "--no-header"]
    command += ["--no-annotate", *(f"--group={name}" for name in GROUPS)]
    command += [f"--prune={name}" for name in SPARED]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout


def install(folder: str, python: str, platform: str) -> None:
    """Fill the folder. Raises BootstrapError, CalledProcessError and TimeoutExpired."""
    net = pip_network.network(dict(os.environ))
    uv = bootstrap.uv_program(net)
    command = [uv, "pip", "install", "--quiet", "--target", folder, "--python", sys.executable]
    command += ["--python-version", python, "--python-platform", platform]
    command += ["--only-binary", ":all:", "--require-hashes", "--requirement", "-"]
    command += ["--no-index"] if net.get("PIP_NO_INDEX") else []
    subprocess.run(
        command,
        input=export(uv),
        text=True,
        env={"UV_INDEX_STRATEGY": "unsafe-best-match", **net},
        timeout=bootstrap.SYNC_TIMEOUT_S,
        check=True,
    )


def main(arguments: list[str]) -> int:
    """Print what is to be installed, or install it. Returns the exit code."""
    try:
        if arguments == ["--print"]:
            print(export(bootstrap.uv_program(pip_network.network(dict(os.environ)))), end="")
        else:
            install(*arguments)
    except (pip_network.BootstrapError, subprocess.SubprocessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
