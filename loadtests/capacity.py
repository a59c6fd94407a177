"""``make capacity``: the highest open-loop rate with p99 under a bound and nothing dropped.

Runs locust with shapes/_search.py, which does the search; then audits the run like any other.
"""

from __future__ import annotations

import argparse
import json
import sys

from loadtests import __main__ as program
from loadtests.proof.audit import CONNECT_TIMEOUT_S
from loadtests.run import runs

P99_MS = 100.0
USERS = 2000
START_RATE = 500.0
#: A bound on the whole search; it ends by itself long before.
SEARCH_MAX_S = 1200


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.capacity", description=__doc__)
    parser.add_argument("--p99-ms", type=float, default=P99_MS, help="the bound")
    parser.add_argument("--users", type=int, default=USERS, help="pool: actions under way at most")
    parser.add_argument(
        "--start-rate", type=float, default=START_RATE, help="actions/s to begin at"
    )
    parser.add_argument("--window-s", type=float, default=5.0, help="one window, without settling")
    options, extra = parser.parse_known_args(arguments)
    if options.p99_ms <= 0 or options.start_rate < 1 or options.window_s < 1:
        parser.error("--p99-ms above 0, --start-rate and --window-s from 1 on")
    name = runs.name_of(runs.new_tag())
    more = ["--capacity-p99-ms", str(options.p99_ms), "--capacity-window-s", str(options.window_s)]
    settings = argparse.Namespace(
        users=options.users,
        run_time=SEARCH_MAX_S,
        shape="_search",
        gate=None,
        audit_timeout_s=CONNECT_TIMEOUT_S,
    )
    more += ["--rate", str(options.start_rate)]
    outcome = program.run_once(settings, [*extra, *more], name, "")
    if isinstance(outcome, int):
        return outcome
    program.show([outcome])
    path = outcome.path / "capacity.json"
    if not path.is_file():
        print("capacity: the search was cut off", file=sys.stderr)
        return 4
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["knee"] is None:
        print(f"capacity: not even {found['history'][-1][0]:,.0f} actions/s meet the bound")
        return 3
    print(
        f"capacity: {found['knee']:,.0f} actions/s with p99 under {options.p99_ms:g} ms, nothing "
        f"dropped ({len(found['history'])} windows){'; ' + found['note'] if found['note'] else ''}"
    )
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
