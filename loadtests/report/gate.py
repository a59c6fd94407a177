"""The gate: thresholds in a file, and whether a run met them. For CI jobs.

``[gate]`` holds the thresholds of the whole run, ``[gate.actions.NAME]`` those of one action.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from cluster.command import if_inventory
from cluster.refusal import Refusal
from loadtests.run import chosen, runs
from loadtests.run.exit_codes import EXIT_FAILED, EXIT_MISSED, EXIT_PASSED, EXIT_UNKNOWN
from loadtests.run.result import (
    ActionResult,
    Audit,
    Figures,
    Model,
    Result,
    read_audit,
    read_result,
    reading,
)


class Thresholds(Model):
    """Upper bounds, except ``throughput_min``. A threshold that is left out is not judged."""

    model_config = ConfigDict(frozen=True)

    p50_ms: float | None = Field(default=None, gt=0)
    p95_ms: float | None = Field(default=None, gt=0)
    p99_ms: float | None = Field(default=None, gt=0)
    p999_ms: float | None = Field(default=None, gt=0)
    error_percent: float | None = Field(
        default=None, ge=0, le=100, description="unknown ones included"
    )
    rejected_percent: float | None = Field(default=None, ge=0, le=100)
    throughput_min: float | None = Field(default=None, ge=0, description="actions/s")


class Gate(Thresholds):
    """The ``[gate]`` table."""

    drops: int | None = Field(default=None, ge=0)
    transfers_min: float | None = Field(default=None, ge=0, description="transfers/s")
    actions: dict[str, Thresholds] = Field(default_factory=dict)


class Finding(Model):
    """One threshold and what was measured; ``met`` is null when it was not measured."""

    what: str
    bound: float
    found: float | None
    met: bool | None


def read(path: Path) -> Gate:
    """Read a gate file. Raises Refusal: file, expected, found, fix."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if set(table) != {"gate"}:
            raise ValueError(f"expected one table [gate], found {sorted(table) or 'nothing'}")
        return Gate.model_validate(table["gate"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Gate.model_fields)
        raise Refusal(
            f"{path}: gate.{where}: {first['msg']}, found {first['input']!r}. "
            f"Fix: use these alone: {known}"
        ) from None
    except (OSError, ValueError) as error:
        raise Refusal(f"{path}: {error}. Fix: see loadtests/gate.toml") from None


def judge(gate: Gate, result: Result) -> list[Finding]:
    """Every threshold of the gate against the run's measured window."""
    window = result.window
    findings = list(_common(gate, window, "", window.actions_per_s))
    if gate.drops is not None:
        findings.append(_at_most("drops", gate.drops, window.drops))
    if gate.transfers_min is not None:
        findings.append(_at_least("transfers/s", gate.transfers_min, window.transfers_per_s))
    for name, thresholds in gate.actions.items():
        action = result.actions.get(name)
        if action is None:
            findings.append(Finding(what=f"{name}: any", bound=0, found=None, met=None))
        else:
            findings += _common(thresholds, action, f"{name}: ", action.per_s)
    return findings


def _common(
    bounds: Thresholds, found: Figures | ActionResult, prefix: str, per_s: float
) -> Iterator[Finding]:
    for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms"):
        bound = getattr(bounds, name)
        if bound is not None:
            yield _at_most(prefix + name, bound, getattr(found.latency, name))
    total = found.ok + found.rejected + found.unknown + found.error
    for name, count in (
        ("error_percent", found.unknown + found.error),
        ("rejected_percent", found.rejected),
    ):
        bound = getattr(bounds, name)
        if bound is not None:
            yield _at_most(prefix + name, bound, 100 * count / total if total else None)
    if bounds.throughput_min is not None:
        yield _at_least(f"{prefix}actions/s", bounds.throughput_min, per_s)


def _at_most(what: str, bound: float, found: float | None) -> Finding:
    met = None if found is None else found <= bound
    return Finding(what=what, bound=bound, found=found, met=met)


def _at_least(what: str, bound: float, found: float) -> Finding:
    return Finding(what=f"{what}, at least", bound=bound, found=found, met=found >= bound)


def exit_code(audit: Audit | None, findings: list[Finding]) -> int:
    """One code for audit and gate together: a wrong ledger is worse than a slow one."""
    if audit is not None and audit.verdict == "failed":
        return EXIT_FAILED
    if audit is None or audit.verdict == "unknown" or any(f.met is None for f in findings):
        return EXIT_UNKNOWN
    return EXIT_MISSED if any(f.met is False for f in findings) else EXIT_PASSED


_FINDINGS = TypeAdapter(list[Finding])


def write_findings(run: Path, findings: list[Finding]) -> None:
    """Keep them beside the result, for the report."""
    runs.write_json(run / "gate.json", _FINDINGS.dump_json(findings, indent=2).decode())


def read_findings(run: Path) -> list[Finding]:
    """What write_findings kept; nothing if the run met no gate."""
    path = run / "gate.json"
    if not path.is_file():
        return []
    with reading(path):
        return _FINDINGS.validate_json(path.read_bytes())


def line(finding: Finding) -> str:
    """One finding for a terminal."""
    word = {True: "met   ", False: "MISSED", None: "unknown"}[finding.met]
    found = "not measured" if finding.found is None else f"{finding.found:,.4g}"
    return f"  {word} {finding.what}: {found} (bound {finding.bound:,.4g})"


@click.command()
@if_inventory
@click.argument("bounds", metavar="FILE", type=Path)
@click.option("--run", "name", help="Run id or directory; default: the cluster's newest.")
def main(file: str | None, bounds: Path, name: str | None) -> int:
    """Judge a finished run by the thresholds in FILE, such as loadtests/gate.toml.

    Exit codes: 0 passed, 1 audit failed, 2 wrong usage, 3 a threshold was missed, 4 unknown.
    """
    thresholds, run = read(bounds), chosen.run(name, file)
    result = read_result(run)
    if result is None:
        why = "has no result.json: the run was cut off. Fix: name a finished one with RUN="
        print(f"error: {run.name} {why}", file=sys.stderr)
        return EXIT_UNKNOWN
    findings = judge(thresholds, result)
    write_findings(run, findings)
    print("\n".join(line(finding) for finding in findings))
    print(f"gate: {run.name} of {result.manifest.target.whose}")
    return exit_code(read_audit(run), findings)
