"""Our options on locust's command line (and in its web UI), each with an environment variable."""

from __future__ import annotations

import re
from functools import partial
from math import inf
from typing import Any

import click

from cluster.refusal import Refusal
from loadtests.client.records import BATCH_MAX
from loadtests.wallet.bank import HOLD_TIMEOUT_S


def add(parser: Any) -> None:
    """Add them to locust's parser."""
    shown = partial(_add, parser)
    hidden = partial(shown, include_in_web_ui=False)
    hidden("addresses", "IP:PORT,... of the cluster to load (default: $INVENTORY's)")
    hidden("cluster-id", "its id (default 0); only with --addresses")
    hidden("engine", "what it is, if you know: tigerbeetle or emulator")
    hidden("reach", "IP:PORT,... at which whoever starts this reaches it", "")
    shown("wallets", "wallets of each worker, one account per asset each", 1000, int)
    shown("skew", "Zipf exponent of their popularity: 0 = all alike", 1.0, float)
    shown("seed", "of all random choices", 1, int)
    shown("think-s", "pause of a user between actions, seconds", 0.0, float)
    shown("rate", "open loop: this many actions/s at the peak; users become a pool", 0.0, float)
    shown("arrivals", "open loop: poisson or fixed", "poisson", choices=["poisson", "fixed"])
    shown("warmup-s", "seconds at the start left out of all figures", 2.0, float)
    shown("deadline-s", "after this many seconds an outcome is unknown", 5.0, float)
    shown("batch-max", "events in one packet at most", BATCH_MAX, int)
    hidden("run-id", "the run's directory under runs/ (default: date and time)", "")
    hidden("group", "a name shared by repeated runs, for the report", "")
    hidden("capacity-p99-ms", "of the capacity search", 100.0, float)
    hidden("capacity-window-s", "of the capacity search", 5.0, float)
    parser.add_argument(
        "--progress",
        action="store_true",
        help="one line a second on stderr",
        include_in_web_ui=False,
    )


def check(options: Any) -> None:
    """Raise Refusal for a value that cannot work: expected, found, fix."""
    for name, least, most, expected in (
        ("wallets", 2, inf, "2 or more"),
        ("skew", 0, inf, "0 or more"),
        ("rate", 0, inf, "0 (closed loop) or more"),
        ("warmup_s", 0, inf, "0 or more"),
        ("think_s", 0, inf, "0 or more"),
        ("deadline_s", 0.1, 60, f"0.1 to 60 (holds live {HOLD_TIMEOUT_S} s)"),
        ("batch_max", 3, BATCH_MAX, f"3 to {BATCH_MAX}"),
    ):
        found = getattr(options, name)
        if not least <= found <= most:
            option = "--" + name.replace("_", "-")
            raise Refusal(f"{option}: expected {expected}, found {found}. Fix: change the option")


def _add(
    parser: Any, name: str, text: str, default: Any = None, convert: Any = str, **more: Any
) -> None:
    environment = "LOADTESTS_" + name.replace("-", "_").upper()
    parser.add_argument(
        f"--{name}", help=text, default=default, type=convert, env_var=environment, **more
    )


def seconds(text: str) -> int:
    """A duration as locust takes it: 20, 20s, 5m, 1h. Raises BadParameter."""
    found = re.fullmatch(r"(\d+)([smh]?)", text.strip())
    if found is None:
        raise click.BadParameter(f"expected a duration such as 20s or 5m, found {text!r}")
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
