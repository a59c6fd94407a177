"""The web UI's form tells a wrong option before anything starts: in a real browser, too."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY
from cluster.refusal import Refusal
from cluster.tigerbeetle.waiting import wait_until
from loadtests import form, options
from loadtests.proof.audit import audit
from loadtests.run.result import read_result
from tests import browser
from tests.leases import free_ports
from tests.load.conftest import TIMEOUT_S, Program, Server, load_options


class Parser(argparse.ArgumentParser):
    """locust's, without what only locust understands."""

    def add_argument(self, *names: Any, **more: Any) -> Any:
        for foreign in ("env_var", "include_in_web_ui"):
            more.pop(foreign, None)
        return super().add_argument(*names, **more)


def shown() -> tuple[argparse.Namespace, dict[str, argparse.Action]]:
    """The options as they are before the form is sent, and which of them it shows."""
    parser = Parser()
    options.add(parser)
    settings = parser.parse_args([])
    vars(settings).update(num_users=1, spawn_rate=1.0, run_time=None, user_classes=[])
    return settings, {action.dest: action for action in parser._actions}


def sent(**fields: str) -> Mapping[str, str]:
    return {"user_count": "5", "spawn_rate": "5", "run_time": "", "host": ""} | fields


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({}, "num_users", 5),
        ({"run_time": "1m30s"}, "run_time", 90),
        ({"wallets": "20"}, "wallets", 20),
        ({"rate": "1e3"}, "rate", 1000.0),
        ({"user_class": "ReaderUser"}, "user_class", "ReaderUser"),
        ({"actions": "pay=1"}, "actions", "pay=1"),
        ({"arrival_profile": "day", "run_time": "60"}, "arrival_profile", "day"),
        ({"profile": "a group of locust's own"}, "wallets", 1000),
    ],
)
def test_a_good_form_is_what_the_command_line_would_be(
    fields: dict[str, str], name: str, value: object
) -> None:
    assert getattr(form.read(sent(**fields), *shown()), name) == value


#: A field, what is typed into it, and what is said. Each was an HTTP 500, or a useless run.
REFUSED = [
    ("wallets", "abc", "--wallets: expected a whole number, found 'abc'. Fix: change the option"),
    ("wallets", "1", "--wallets: expected 2 to 2147483647, found 1"),
    ("rate", "fast", "--rate: expected a number, found 'fast'"),
    ("rate", "-5", "--rate: expected 0 (closed loop) or more, found -5.0"),
    ("rate", "nan", "--rate: expected 0 (closed loop) or more, found nan"),
    ("user_count", "0", "--users: expected 1 or more, found 0"),
    ("spawn_rate", "0", "--spawn-rate: expected 0.001 or more, found 0.0"),
    ("run_time", "soon", "--run-time: expected a duration such as 20s or 5m, found 'soon'"),
    ("actions", "steal=1", "--actions: expected actions of pay, deposit,"),
    ("arrival_profile", "dya", "(did you mean day?), found dya"),
    ("arrival_profile", "day", "--run-time: expected a duration, over which --arrival-profile"),
]
MORE_REFUSED = [
    ("wallets", "", "--wallets: expected a whole number, found ''"),  # the page leaves it out
    ("user_count", "many", "--users: expected a whole number, found 'many'"),
    ("user_count", "1.5", "--users: expected a whole number"),
    ("spawn_rate", "inf", "--spawn-rate: expected 0.001 or more, found inf"),
    ("user_class", "Thief", "--user-class: expected one of WalletUser, SettlementUser, ReaderUser"),
    ("arrivals", "even", "--arrivals: expected one of poisson, fixed, found 'even'"),
    ("deadline_s", "0", "--deadline-s: expected 0.1 to 60"),
    ("batch_max", "1e3", "--batch-max: expected a whole number, found '1e3'"),
    ("seed", "-1", "--seed: expected 0 or more, found -1"),
]


@pytest.mark.parametrize(("name", "text", "message"), [*REFUSED, *MORE_REFUSED])
def test_a_wrong_field_is_told_as_on_the_command_line(name: str, text: str, message: str) -> None:
    settings, ours = shown()
    before = vars(settings).copy()
    with pytest.raises(Refusal) as raised:
        form.read(sent(**{name: text}), settings, ours)
    assert message in str(raised.value)
    assert vars(settings) == before


@contextmanager
def web_ui(program: Program, server: Server, *more: str) -> Iterator[str]:
    """The web UI as `make load-ui` starts it; its address."""
    port = free_ports(1)[0]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py"),
            *("--web-host", "127.0.0.1", "--web-port", str(port), *more),
            *load_options(server)[4:],  # without --users and --run-time
        ],
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _opens(base), what="the web UI", timeout_s=TIMEOUT_S)
        yield base
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def _opens(base: str) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(base, timeout=100) as answer:
            return bool(answer.read()), "empty"
    except OSError as error:
        return False, str(error)


def said(base: str) -> tuple[str, int]:
    """What locust itself says that it does, and how many actions it has counted."""
    with urllib.request.urlopen(f"{base}/stats/requests", timeout=100) as answer:
        found = json.loads(answer.read())
    return str(found["state"]), sum(row["num_requests"] for row in found["stats"])


def field(name: str) -> str:
    """How the page finds a field: it names them in its own way."""
    first, *rest = name.split("_")
    return f"document.querySelector('[name={first + ''.join(map(str.title, rest))}]')"


START = "[...document.querySelectorAll('button')].find(each => each.innerText == 'START')"


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_a_browser_is_told_what_is_wrong_and_nothing_starts_until_it_is_right(
    program: Program, server: Server, tmp_path: Path
) -> None:
    with (
        web_ui(program, server, "--scenario", "read-mostly", "--actions", "") as base,
        browser.page(tmp_path / "browser") as page,
    ):
        page.open(base)
        page.wait_for(f"!!({START})")
        assert page.evaluate(f"{field('user_class')}.value") == "WalletUser"
        assert page.evaluate(f"{field('skew')}.value") == "0"  # the scenario's
        page.evaluate(
            "document.querySelectorAll('[aria-expanded=false].MuiAccordionSummary-root')"
            ".forEach(each => each.click())"
        )
        page.type(field("run_time"), "")  # it has the scenario's
        for name, text, message in REFUSED:
            before = page.evaluate(f"{field(name)}.value")
            page.type(field(name), text)
            page.click(START)
            page.wait_for(f"document.body.innerText.includes({json.dumps(message)})")
            assert said(base) == ("ready", 0)
            page.type(field(name), before)
        assert not list(program.runs.glob("*"))
        for name, text in (("user_count", "3"), ("rate", "50"), ("wallets", "10")):
            page.type(field(name), text)
        page.click(START)
        page.wait_for("document.body.innerText.includes('RUNNING')")
        wait_until(lambda: (said(base)[1] > 0, "none"), what="actions", timeout_s=TIMEOUT_S)
        page.open(base)  # where answers come late, locust's page goes back to what was before
        page.click("[...document.querySelectorAll('button')].find(e => e.innerText == 'STOP')")
        wait_until(
            lambda: (bool(list(program.runs.glob("*/result.json"))), "none"),
            what="the result",
            timeout_s=TIMEOUT_S,
        )
    result = read_result(program.newest)
    assert result
    settings = result.manifest.settings
    assert (settings.users, settings.rate, settings.wallets) == (3, 50, 10)
    assert (settings.user_classes, settings.scenario) == (["WalletUser"], "read-mostly")
    assert audit(program.newest).verdict == "passed"
