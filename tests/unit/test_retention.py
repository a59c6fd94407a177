"""What is kept is what restic keeps by the same words; the newest always; nothing comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.operate.backup import retention
from cluster.operate.backup.retention import NAME_FORMAT, Policy
from cluster.refusal import Refusal

WORDS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def named(at: datetime) -> str:
    return at.strftime(NAME_FORMAT)


def nightly(nights: int) -> list[str]:
    """At 02:00 of each night from 1 January 2026 on, which is a Thursday."""
    return [named(EPOCH + timedelta(days=night, hours=2)) for night in range(nights)]


def kept(policy: Policy, names: list[str]) -> list[str]:
    return sorted({*names} - {*retention.expired(policy, names)})


#: Close together as well as far apart: within an hour, a day, some years.
MOMENTS = st.one_of(
    st.integers(0, 3600), st.integers(0, 3 * 86400), st.integers(0, 3 * 365 * 86400)
).map(lambda seconds: named(EPOCH + timedelta(seconds=seconds)))
SETS = st.lists(MOMENTS, max_size=30)
POLICIES = st.builds(Policy, **{word: st.integers(0, 5) for word in WORDS})


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("7", Policy(last=7)),
        (" 7 ", Policy(last=7)),
        ("last=3", Policy(last=3)),
        ("daily=7 weekly=5 monthly=12", Policy(daily=7, weekly=5, monthly=12)),
        ("daily=7, weekly=5", Policy(daily=7, weekly=5)),
        ("hourly=24 yearly=0", Policy(hourly=24)),
    ],
)
def test_a_policy_is_a_number_or_words_with_numbers(text: str, policy: Policy) -> None:
    assert retention.parse(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "0", "-1", "2.5", "x", "²", "٣", "1234567", "7 8", "7 daily=3"),
        *("daily", "daily=", "daily=x", "daily=-1", "=7", "daily=7=7", "daily =7", "daily=0"),
        *("daily=7 daily=8", "nightly=7", "Daily=7", "within=7d", "daily=7;weekly=5"),
    ],
)
def test_what_is_not_clear_or_would_keep_nothing_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(Refusal, match="KEEP: expected how many backups to keep") as refused:
        retention.parse(text)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


@given(POLICIES.filter(lambda policy: policy != Policy()))
def test_a_policy_is_said_as_it_is_typed(policy: Policy) -> None:
    assert retention.parse(str(policy)) == policy


def test_a_number_keeps_the_newest() -> None:
    names = nightly(10)
    assert retention.expired(Policy(last=3), names) == names[:7]
    assert retention.expired(Policy(last=10), names) == []


def test_nightly_backups_thin_out_with_their_age() -> None:
    """A year of nights ends on Thursday, 31 December 2026."""
    found = kept(Policy(daily=7, weekly=5, monthly=12), nightly(365))
    days = [name[:8] for name in found]
    assert days[-7:] == [f"202612{day}" for day in range(25, 32)]
    # The Sundays of the weeks before, and the last nights of the months before.
    assert days[:-7] == [
        *("20260131", "20260228", "20260331", "20260430", "20260531", "20260630"),
        *("20260731", "20260831", "20260930", "20261031", "20261130"),
        *("20261206", "20261213", "20261220"),
    ]


def test_a_day_without_a_backup_costs_none() -> None:
    names = [named(EPOCH + timedelta(days=day)) for day in (0, 1, 50, 90)]
    assert retention.expired(Policy(daily=3), names) == names[:1]


@given(POLICIES, SETS)
def test_the_newest_is_never_let_go(policy: Policy, names: list[str]) -> None:
    let_go = retention.expired(policy, names)
    assert set(let_go) <= set(names)
    assert not names or max(names) not in let_go
    assert let_go == sorted(let_go)


@given(POLICIES, SETS, st.sampled_from(WORDS))
def test_who_keeps_more_lets_go_of_nothing_more(
    policy: Policy, names: list[str], word: str
) -> None:
    more = policy.model_copy(update={word: getattr(policy, word) + 1})
    assert set(retention.expired(more, names)) <= set(retention.expired(policy, names))


@given(POLICIES, SETS, MOMENTS)
def test_what_was_let_go_is_not_missed_later(policy: Policy, names: list[str], moment: str) -> None:
    """Pruned every night, or once after all: the same is kept."""
    later = [*names, moment] if not names else [*names, max(*names, moment)]
    assert kept(policy, kept(policy, names)) == kept(policy, names)
    assert kept(policy, [*kept(policy, names), later[-1]]) == kept(policy, later)


@given(POLICIES, SETS)
def test_each_word_keeps_the_newest_of_its_periods_and_no_more(
    policy: Policy, names: list[str]
) -> None:
    """Said once more, period by period, by another way of counting."""
    expected = {max(names)} if names else set()
    for word, digits in (("hourly", 11), ("daily", 8), ("monthly", 6), ("yearly", 4)):
        periods = sorted({name[:digits] for name in names}, reverse=True)
        for period in periods[: getattr(policy, word)]:
            expected.add(max(name for name in names if name.startswith(period)))
    expected |= set(sorted(set(names), reverse=True)[: policy.last])
    weeks: dict[int, str] = {}
    for name in sorted(set(names)):
        at = datetime.strptime(name, NAME_FORMAT)
        weeks[(at - datetime(2025, 12, 29)).days // 7] = name  # a Monday
    expected |= {weeks[week] for week in sorted(weeks, reverse=True)[: policy.weekly]}
    assert set(kept(policy, names)) == expected


needs_restic = pytest.mark.skipif(
    shutil.which("restic") is None, reason="restic is not installed: apt-get install restic"
)
#: At turns of hours, days, weeks, months and years.
TURNS = [
    *("20241230T010000Z", "20251228T235959Z", "20251229T000000Z", "20251231T235959Z"),
    *("20260101T000000Z", "20260104T120000Z", "20260105T120000Z", "20260131T000000Z"),
    *("20260201T000000Z", "20260201T005959Z", "20260201T010000Z", "20260201T230000Z"),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One of restic's own, with an empty snapshot at each of the turns."""
    place = tmp_path_factory.mktemp("restic")
    environ = os.environ | {
        "RESTIC_REPOSITORY": str(place / "repository"),
        "RESTIC_PASSWORD": "only here",
        "RESTIC_CACHE_DIR": str(place / "cache"),
        "TZ": "UTC",
    }
    restic(environ, "init")
    for name in TURNS:
        at = datetime.strptime(name, NAME_FORMAT).strftime("%Y-%m-%d %H:%M:%S")
        restic(environ, "backup", "--stdin", "--stdin-filename=x", "--host=h", f"--time={at}")
    yield environ
    shutil.rmtree(place)


def restic(environ: dict[str, str], *arguments: str) -> str:
    command = ["restic", "--quiet", *arguments]
    return subprocess.run(
        command, env=environ, input="x", capture_output=True, text=True, timeout=60, check=True
    ).stdout


@needs_restic
@given(policy=POLICIES.filter(lambda policy: policy != Policy()))
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_restic_keeps_the_same(repository: dict[str, str], policy: Policy) -> None:
    words = [f"--keep-{word}={count}" for word, count in policy if count]
    (said,) = json.loads(restic(repository, "forget", "--dry-run", "--json", *words))
    theirs = {named(datetime.fromisoformat(one["time"])) for one in said["keep"]}
    # From release 0.16 on it also keeps the oldest, while a number is not used up.
    assert theirs - {min(TURNS)} == set(kept(policy, TURNS)) - {min(TURNS)}
