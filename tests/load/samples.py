"""Results made by hand, for what only reads them."""

from __future__ import annotations

from typing import Any

from loadtests.run.histogram import Histogram
from loadtests.run.meter import ActionSecond, Meter, Second
from loadtests.run.result import (
    Audit,
    Check,
    Fault,
    Machine,
    Manifest,
    Result,
    ServerPoint,
    Settings,
    Target,
)
from loadtests.run.series import Series, by_action, figures

STARTED = 1_800_000_000.0


def manifest(**settings: Any) -> Manifest:
    return Manifest(
        run="20270115-080000-0001",
        tag="117",
        started=STARTED,
        target=Target(
            deployment="emulator",
            engine="emulator",
            label="EMULATOR (one node, no replication, not TigerBeetle)",
            release="0.17.9",
            cluster_id="340282366920938463463374607431768211455",
            addresses="127.0.0.1:3000,127.0.0.1:3001,127.0.0.1:3002",
        ),
        settings=Settings.model_validate(
            {
                "users": 50,
                "user_classes": ["WalletUser"],
                "mode": "closed",
                "rate": None,
                "profile": "steady",
                "wallets": 1000,
                "skew": 1.0,
                "warmup_s": 2.0,
                "deadline_s": 5.0,
                "seed": 1,
                "processes": 1,
            }
            | settings
        ),
        machine=Machine(
            host="bench-1",
            cpus=8,
            cpu_model="A processor",
            memory_gib=31.3,
            system="Linux 6.1",
            python="3.12.1",
            client_release="0.17.9",
            locust="2.47.0",
        ),
    )


def second(at: float, milliseconds: float, *, ok: int = 100, **more: Any) -> Second:
    """One second of pays that all took the same."""
    histogram = Histogram()
    histogram.add([milliseconds / 1000] * ok)
    spent = ok * milliseconds / 1000
    pay = ActionSecond(
        ok=ok,
        rejected=more.pop("rejected", 0),
        unknown=more.pop("unknown", 0),
        error=0,
        reasons={},
        buckets=histogram.buckets,
        parts=(ok, 0.0, 0.5 * spent, 0.3 * spent, 0.2 * spent),
    )
    made = Meter(0).second(at, cpu_percent=more.pop("cpu_percent", 40.0), users=50)
    made["actions"] = {"pay": pay}
    made["parts"] = {bucket // 8: pay["parts"] for bucket in histogram.buckets}
    made["transfers"] = made["events"] = ok
    made["requests"] = 10
    made["tail"] = more.pop("tail", False)
    assert not more
    return made


def result(seconds: list[Second] | None = None, **settings: Any) -> Result:
    series = Series()
    for made in seconds or [second(STARTED + 1 + i, 2.0 + i % 5) for i in range(20)]:
        series.add(made)
    window = series.seconds[2:] if len(series.seconds) > 4 else series.seconds
    return Result(
        manifest=manifest(**settings),
        ended=STARTED + 21,
        complete=True,
        workers=1,
        transfers_sent=2100,
        transfers_acknowledged=series.transfers,
        actions_per_s=figures(window, len(window)).actions_per_s,
        unanswered=0,
        window=figures(window, len(window)),
        actions=by_action(window, len(window)),
        series=series.points(),
        servers=[
            ServerPoint(
                at=STARTED + i,
                replica=str(r),
                cpu_percent=30 + r,
                rss_mib=2200,
                read_mib_s=0,
                write_mib_s=1,
            )
            for i in range(1, 21)
            for r in range(3)
        ],
        faults=[Fault(at=STARTED + 9, what="replica 1 is gone")],
        notes=[],
    )


def audit(verdict: str = "passed") -> Audit:
    return Audit(
        run="20270115-080000-0001",
        verdict=verdict,  # type: ignore[arg-type]
        checks=[
            Check(name="acknowledged", verdict="passed", detail="2,000 are there"),
            Check(name="balances", verdict=verdict, detail="see <here> & there"),  # type: ignore[arg-type]
        ],
        transfers_checked=2000,
        accounts_checked=400,
        unknown_resolved={"committed": 0, "absent": 0},
        seconds=1.0,
        peak_rss_mib=100.0,
    )
