"""``make logs``: the replicas' logs, each line behind its replica's name."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

from cluster import config, inventory, processes

LINES = 40


def main() -> int:
    """Print the last lines of all replicas or of one; with ``--follow``, go on until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m cluster.logs", description=__doc__)
    parser.add_argument("--inventory", help="default: $INVENTORY, else the emulator's")
    parser.add_argument("--replica", type=int, help="only this one")
    parser.add_argument("--follow", action="store_true")
    options = parser.parse_args()
    deployment = inventory.read_or_exit(options.inventory)
    indexes = [r.index for r in deployment.cluster.replicas]
    if options.replica is not None and options.replica not in indexes:
        config.fail(
            config.ConfigError(
                "REPLICA", expected=f"one of {', '.join(map(str, indexes))}",
                found=options.replica, fix="name one of them",
            )
        )  # fmt: skip
    chosen = indexes if options.replica is None else [options.replica]
    paths = [processes.files_of(deployment, index).log for index in chosen]
    missing = [path for path in paths if not path.exists()]
    if missing:
        print(f"no log yet: {missing[0]}. Start the cluster with `make up`.", file=sys.stderr)
        return 1
    if options.follow:
        tail = shutil.which("tail") or "tail"
        try:
            return subprocess.run([tail, f"--lines={LINES}", "-F", *map(str, paths)]).returncode
        except KeyboardInterrupt:
            return 0
    for index, path in zip(chosen, paths, strict=True):
        for line in processes.tail(path, LINES):
            print(f"{processes.program_name(index)} | {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
