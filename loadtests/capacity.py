"""``make capacity``: the highest open-loop rate with p99 under a bound and nothing dropped.

Runs locust with shapes/_search.py, which does the search; then audits the run like any other.
"""

from __future__ import annotations

import json
import sys

import click

from loadtests.load import SEARCH, Wanted, run_once, show
from loadtests.run import runs

P99_MS = 100.0
USERS = 2000
START_RATE = 500.0
#: A bound on the whole search; it ends by itself long before.
SEARCH_MAX_S = 1200


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--p99-ms", default=P99_MS, help="The bound.")
@click.option("--users", default=USERS, help="Pool: actions under way at most.")
@click.option("--start-rate", default=START_RATE, help="Actions/s to begin at.")
@click.option("--window-s", default=5.0, help="One window, without settling.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def main(
    p99_ms: float, users: int, start_rate: float, window_s: float, extra: tuple[str, ...]
) -> int:
    """Find the highest open-loop rate with p99 under a bound and nothing dropped.

    Whatever else is given goes to locust. Exit codes: as of `load`; 3 not even the lowest rate.
    """
    if p99_ms <= 0 or start_rate < 1 or window_s < 1:
        raise click.UsageError(
            "--p99-ms: expected more than 0; --start-rate, --window-s: expected 1 or more"
        )
    more = ["--capacity-p99-ms", str(p99_ms), "--capacity-window-s", str(window_s)]
    more += ["--rate", str(start_rate)]
    wanted = Wanted(users, SEARCH_MAX_S, shape=SEARCH)
    outcome = run_once(wanted, [*extra, *more], runs.name_of(runs.new_tag()), "")
    if isinstance(outcome, int):
        return outcome
    show([outcome])
    path = outcome.path / "capacity.json"
    if not path.is_file():
        print("capacity: the search was cut off", file=sys.stderr)
        return 4
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["knee"] is None:
        print(f"capacity: not even {found['history'][-1][0]:,.0f} actions/s meet the bound")
        return 3
    print(
        f"capacity: {found['knee']:,.0f} actions/s with p99 under {p99_ms:g} ms, nothing "
        f"dropped ({len(found['history'])} windows){'; ' + found['note'] if found['note'] else ''}"
    )
    return outcome.exit_code
