"""``python -m cluster.config [ENV_FILE]``: is the configuration right, and what does it mean?"""

from __future__ import annotations

import argparse
from pathlib import Path

from cluster.config import ENV_FILE, fail, load
from cluster.refusal import Refusal


def main() -> None:
    """Validate the configuration and print what it means; exit code 2 when it is bad."""
    parser = argparse.ArgumentParser(prog="python -m cluster.config", description=main.__doc__)
    parser.add_argument("env_file", nargs="?", type=Path, default=ENV_FILE)
    try:
        cluster = load(parser.parse_args().env_file)
    except Refusal as error:
        fail(error)
    print(f"cluster {cluster.id}, release {cluster.release}, at {cluster.addresses}")


if __name__ == "__main__":
    main()
