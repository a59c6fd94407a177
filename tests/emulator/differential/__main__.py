"""`python -m tests.emulator.differential --seeds N --steps N`: the long form of the suite."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from tests.emulator.differential.campaign import explore, pair
from tests.emulator.native import NativeClient


def main() -> int:
    """0: no divergence and every reachable status hit; 1: otherwise; 2: no genuine server."""
    parser = argparse.ArgumentParser(prog="differential", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--steps", type=int, default=1000, help="per seed")
    arguments = parser.parse_args()
    binary = os.environ.get("TIGERBEETLE_BIN") or shutil.which("tigerbeetle")
    if not binary:
        print("no genuine tigerbeetle server in TIGERBEETLE_BIN or on PATH to compare with")
        return 2
    with tempfile.TemporaryDirectory(prefix="differential-") as name:
        emulator, genuine = pair(Path(name), binary)
        try:
            with (
                NativeClient(0, emulator.addresses) as one,
                NativeClient(0, genuine.addresses) as other,
            ):
                seeds = list(range(arguments.first, arguments.first + arguments.seeds))
                campaign = explore(
                    seeds, arguments.steps, (one, other), lambda line: print(line, flush=True)
                )
        finally:
            emulator.stop()
            genuine.stop()
    print(campaign.report())
    return 1 if campaign.divergences or campaign.missing() else 0


if __name__ == "__main__":
    raise SystemExit(main())
