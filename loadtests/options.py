"""Our options on locust's command line (and in its web UI), each with an environment variable."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any

import click

from cluster.refusal import Refusal, told
from loadtests.client.records import BATCH_MAX
from loadtests.traffic import mix, profile, scenario
from loadtests.wallet.bank import HOLD_TIMEOUT_S
from loadtests.wallet.wallets import WALLETS_MAX

#: What a run's users may be, by their names in the locustfile; the first is what is meant.
USERS = ("WalletUser", "SettlementUser", "ReaderUser")


def whole(text: str) -> int:
    """A whole number; for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None


def number(text: str) -> float:
    """A number; for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}") from None


def add(parser: Any) -> None:
    """Add them to locust's parser; a scenario that is named gives defaults of its own."""
    shown = partial(_add, parser)
    hidden = partial(shown, include_in_web_ui=False)
    hidden("addresses", "IP:PORT,... of the cluster to load (default: $INVENTORY's)")
    hidden("cluster-id", "its id (default 0); only with --addresses")
    hidden("engine", "what it is, if you know: tigerbeetle or emulator")
    hidden("reach", "IP:PORT,... at which whoever starts this reaches it", "")
    hidden("scenario", "defaults for these options; `make load-scenarios` lists them", "")
    shown("user-class", "what users do", USERS[0], choices=USERS)
    shown("actions", "of a WalletUser, as pay=8,balance=2; empty: the usual mix", "")
    shown("wallets", "wallets of each worker, one account per asset each", 1000, whole)
    shown("population", "a run whose wallets are used, instead of fresh ones", "")
    shown("skew", "Zipf exponent of their popularity: 0 = all alike", 1.0, number)
    shown("seed", "of all random choices", 1, whole)
    shown("think-s", "pause of a user between actions, seconds", 0.0, number)
    shown("rate", "open loop: this many actions/s at the peak; users become a pool", 0.0, number)
    shown("arrivals", "open loop: poisson or fixed", "poisson", choices=["poisson", "fixed"])
    shown("arrival-profile", "how rate or users change: a name or a file; empty: steady", "")
    shown("warmup-s", "seconds at the start left out of all figures", 2.0, number)
    shown("deadline-s", "after this many seconds an outcome is unknown", 5.0, number)
    shown("batch-max", "events in one packet at most", BATCH_MAX, whole)
    hidden("run-id", "the run's directory under runs/ (default: date and time)", "")
    hidden("group", "a name shared by repeated runs, for the report", "")
    hidden("capacity-p99-ms", "of the capacity search", 100.0, number)
    hidden("capacity-window-s", "of the capacity search", 5.0, number)
    parser.add_argument(
        "--progress",
        action="store_true",
        help="one line a second on stderr",
        include_in_web_ui=False,
    )
    with told():
        parser.set_defaults(**of_scenario(named_scenario(sys.argv[1:])))


def named_scenario(arguments: Sequence[str]) -> str:
    """The scenario on a command line, or in the environment; empty where there is none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--scenario", default=os.environ.get(variable("scenario"), ""))
    return str(parser.parse_known_args(arguments)[0].scenario)


def of_scenario(name: str) -> dict[str, Any]:
    """What a scenario says of locust's options and ours. Raises Refusal."""
    return scenario.read(name).options() if name else {}


def settle(options: Any) -> None:
    """Check all of them together, and fill in what follows from others. Raises Refusal."""
    check(options)
    mix.parsed(options.actions)
    users = options.user_classes or [options.user_class]
    if options.actions and users != [USERS[0]]:
        raise Refusal(
            "--actions (a scenario's, too)",
            expected=f"users that are {USERS[0]} alone",
            found=", ".join(users),
            fix="choose one of both",
        )
    if not options.arrival_profile:
        return
    found = profile.read(options.arrival_profile)
    options.rate = options.rate or found.rate or 0.0
    if not options.run_time:
        raise Refusal(
            "--run-time",
            expected="a duration, over which --arrival-profile is stretched",
            found="none",
            fix="set it, such as 60s",
        )


def check(options: Any) -> None:
    """Raise Refusal for a value that cannot work: expected, found, fix."""
    for name, least, most, expected in (
        ("wallets", 2, WALLETS_MAX - 1, f"2 to {WALLETS_MAX - 1}"),
        ("skew", 0, 100, "0 to 100"),
        ("seed", 0, inf, "0 or more"),
        ("rate", 0, inf, "0 (closed loop) or more"),
        ("warmup_s", 0, inf, "0 or more"),
        ("think_s", 0, inf, "0 or more"),
        ("deadline_s", 0.1, 60, f"0.1 to 60 (holds live {HOLD_TIMEOUT_S} s)"),
        ("batch_max", 3, BATCH_MAX, f"3 to {BATCH_MAX}"),
    ):
        found = getattr(options, name)
        if not least <= found <= most or found == inf:
            option = "--" + name.replace("_", "-")
            raise Refusal(f"{option}: expected {expected}, found {found}. Fix: change the option")


def _add(
    parser: Any, name: str, text: str, default: Any = None, convert: Any = str, **more: Any
) -> None:
    parser.add_argument(
        f"--{name}", help=text, default=default, type=convert, env_var=variable(name), **more
    )


def variable(name: str) -> str:
    """The environment variable that gives an option."""
    return "LOADTESTS_" + name.replace("-", "_").upper()


def duration(text: str) -> int:
    """Seconds from what locust takes: 20, 20s, 5m, 1h, 1h20m. Raises ValueError."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip(), re.ASCII)
    if not found or not any(found.groups()):
        raise ValueError(f"expected a duration such as 20s or 5m, found {text!r}")
    hours, minutes, rest = (int(each or 0) for each in found.groups())
    return 3600 * hours + 60 * minutes + rest


def seconds(text: str) -> int:
    """The same, for a command of ours. Raises BadParameter."""
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
