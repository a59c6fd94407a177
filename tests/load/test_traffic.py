"""Profiles, mixes and scenarios: what a file says, and each mistake told by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from cluster.refusal import Refusal
from loadtests.traffic import described, mix, profile, scenario

PROFILES = described.names(profile.FOLDER)
SCENARIOS = described.names(scenario.FOLDER)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_stays_within_its_peak_and_reaches_it(name: str) -> None:
    found = profile.read(name)
    levels = [found.level(i / 10_000) for i in range(10_001)]
    assert min(levels) > 0
    assert max(levels) == pytest.approx(1, abs=0.01)


def test_a_step_profile_never_falls() -> None:
    levels = [profile.read("step").level(i / 100) for i in range(100)]
    assert levels == sorted(levels)
    assert sorted(set(levels)) == [0.2, 0.4, 0.6, 0.8, 1]


def test_a_spike_is_over_before_the_run_is() -> None:
    spike = profile.read("spike")
    assert [spike.level(at) for at in (0.1, 0.5, 0.9)] == [0.2, 1, 0.2]


def write(tmp_path: Path, text: str, name: str = "mine.toml") -> str:
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def test_between_points_there_is_a_line_and_a_jump_is_a_jump(tmp_path: Path) -> None:
    text = 'about = "x"\nunit = "hours"\npoints = [[0, 0], [10, 1], [20, 0.5]]'
    line = profile.read(write(tmp_path, text))
    assert [line.level(at) for at in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 1, 0.75, 0.5]
    assert line.span() == "20 hours"
    step = profile.read(write(tmp_path, text + '\nbetween = "step"'))
    assert [step.level(at) for at in (0, 0.49, 0.5, 0.99, 1)] == [0, 0, 1, 1, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.toml about: expected a line of at most 90 characters, found nothing"),
        ('about = ""\npoints = [[0, 1], [1, 1]]', "about: expected a line of at most 90"),
        ("about =", "mine.toml: expected TOML, found"),
        ('about = "x"', "points: expected a list of points, each [time, share of peak], found"),
        ('about = "x"\npoints = [[0, 1]]', "points: expected two points or more"),
        ('about = "x"\npoints = [[0, 1], [1]]', "points: expected two points or more, each"),
        ('about = "x"\npoints = [[1, 1], [2, 1]]', "points: expected times that begin with 0"),
        ('about = "x"\npoints = [[0, 1], [0, 1]]', "points: expected times that begin with 0 and"),
        ('about = "x"\npoints = [[0, 1], [nan, 1]]', "points: expected times that begin with 0"),
        ('about = "x"\npoints = [[0, 1], [1, 2]]', "points: expected shares from 0 to 1"),
        ('about = "x"\npoints = [[0, 0], [1, 0.9]]', "the highest of them 1"),
        ('about = "x"\npoints = [[0, "a"], [1, 1]]', "points.0.1: expected a list of points"),
        ('about = "x"\npoint = [[0, 1], [1, 1]]', "(did you mean points?), found 'point'"),
        (
            'about = "x"\nunit = "days"\npoints = [[0, 1], [1, 1]]',
            "unit: expected seconds, minutes or hours; without it, parts of the run, found 'days'",
        ),
        ('about = "x"\nrate = 0\npoints = [[0, 1], [1, 1]]', "rate: expected actions/s at the"),
    ],
)
def test_a_mistake_in_a_described_profile_is_told_by_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(Refusal) as raised:
        profile.read(write(tmp_path, text))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "times",
    [
        ("0", "60", "180"),
        ("1764403200", "1764403260", "1764403380"),
        ("2026-01-31T08:00:00Z", "2026-01-31T08:01:00Z", "2026-01-31T08:03:00+00:00"),
    ],
    ids=["seconds", "unix", "ISO"],
)
def test_a_recorded_profile_keeps_its_rates(tmp_path: Path, times: tuple[str, ...]) -> None:
    """600 in the first minute, 2,400 in the next two, 600 in as long again."""
    counts = "600", "2400", "600"
    rows = [f"{at},{count}" for at, count in zip(times, counts, strict=True)]
    text = "\n".join(["at,count", *rows])
    found = profile.read(write(tmp_path, text, "yesterday.csv"))
    assert found.rate == 20
    assert found.span() == "300 seconds"
    assert [found.level(at / 300) for at in (0, 59, 60, 179, 181, 299)] == [
        *(0.5, 0.5),
        *(1, 1),
        *(0.25, 0.25),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "yesterday.csv line 1: expected the header at,count, found ''"),
        ("time,count\n0,1", "line 1: expected the header at,count, found 'time,count'"),
        ("at,count\n0,1", "line 2: expected two lines or more"),
        ("at,count\n0,0\n1,0", "line 3: expected two lines or more, not all of them 0"),
        ("at,count\n0,1\n0,1", "line 3: expected a later time than in the line before, found '0'"),
        ("at,count\n0,1\n1,-1", "line 3: expected seconds or an ISO 8601 time, and a count of 0"),
        ("at,count\n0,1\n\n2,1", "line 3: expected seconds or"),
        ("at,count\nnoon,1\n2,1", "line 2: expected seconds or"),
        ("at,count\n0,nan\n2,1", "line 2: expected seconds or"),
        ("at,count\n0,1,1\n2,1", "line 2: expected seconds or"),
    ],
)
def test_a_mistake_in_a_recorded_profile_is_told_by_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(Refusal) as raised:
        profile.read(write(tmp_path, text, "yesterday.csv"))
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["", "dya", "none.toml", "/", "day.csv"])
def test_a_profile_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="--arrival-profile: expected one of day, "):
        profile.read(name)


def test_a_mix_is_what_it_was_on_the_command_line() -> None:
    assert mix.parsed("") == dict(mix.USUAL)
    assert mix.parsed("pay=3, settle=1,balance=0") == {"pay": 3, "settle": 1}
    assert mix.parsed(mix.told(mix.USUAL)) == dict(mix.USUAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pay", "expected ACTION=WEIGHT,..., each weight a whole number, found 'pay'"),
        ("pay=", "each weight a whole number"),
        ("pay=-1", "each weight a whole number"),
        ("pay=1.5", "each weight a whole number"),
        ("pay=1,", "each weight a whole number"),
        ("pay=0", "expected one weight or more above 0"),
        ("pay=1001", "expected weights of 0 to 1000, for pay too"),
        ("steal=1", "instead of 'steal'"),
        ("deposits=1", "(did you mean deposit?) instead of 'deposits'"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(Refusal) as raised:
        mix.parsed(text)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_that_comes_along_gives_options_that_go_together(name: str) -> None:
    given = scenario.read(name).options()
    assert given
    assert mix.parsed(given.get("actions", ""))
    if "arrival_profile" in given:
        assert given["arrival_profile"] in PROFILES


def test_a_scenario_gives_what_it_has_and_nothing_else(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
about = "mine"
[actions]
pay = 3
balance = 0
[wallets]
count = 20
[arrivals]
rate = 50
users = 7
profile = "day"
duration_s = 30
""",
    )
    assert scenario.read(file).options() == {
        "actions": "pay=3",
        "wallets": 20,
        "rate": 50.0,
        "num_users": 7,
        "arrival_profile": "day",
        "run_time": 30,
    }
    assert scenario.read(write(tmp_path, 'about = "nothing"')).options() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[wallet]\ncount = 2", "expected one of about, actions, wallets, arrivals (did you mean"),
        ("[wallets]\ncuont = 2", "wallets: expected one of count, skew (did you mean count?)"),
        ("[wallets]\ncount = 1", "wallets.count: expected wallets of each worker, 2 or more, foun"),
        ("[wallets]\ncount = 2.5", "wallets.count: expected wallets of each worker"),
        ("[wallets]\ncount = true", "wallets.count: expected wallets of each worker"),
        ("wallets = 5", "wallets: expected a table: count, skew, found 5"),
        ("[actions]\npayy = 2", "actions: expected actions of pay, deposit,"),
        ("[actions]\npay = 0", "actions: expected one weight or more above 0"),
        ('[actions]\npay = "2"', "actions.pay: expected weights of actions, each a whole number"),
        ('[arrivals]\nrate = "fast"', "arrivals.rate: expected open loop: actions/s at the peak"),
        ("[arrivals]\nrate = 0", "arrivals.rate: expected open loop: actions/s at the peak, more"),
        ('[arrivals]\nprocess = "even"', "arrivals.process: expected poisson or fixed, found 'ev"),
        ('[arrivals]\nprofile = "dya"', "arrivals.profile: --arrival-profile: expected one of"),
        ("[arrivals]\nduration = 5", "(did you mean duration_s?), found 'duration', which is unk"),
        ("[arrivals]\nduration_s = 0", "arrivals.duration_s: expected 1 second or more, found 0"),
    ],
)
def test_a_mistake_in_a_scenario_is_told_by_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    head = "" if text.startswith("about") else 'about = "x"\n'
    with pytest.raises(Refusal) as raised:
        scenario.read(write(tmp_path, head + text))
    assert message in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_the_list_has_every_scenario_and_profile_with_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["load-scenarios"]) == 0
    said = capsys.readouterr().out
    models: list[Any] = [*map(scenario.read, SCENARIOS), *map(profile.read, PROFILES)]
    lines = [line.split("  ", 2)[1:] for line in said.splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [*SCENARIOS, *PROFILES]
    assert [about.strip() for _, about in lines] == [model.about for model in models]
