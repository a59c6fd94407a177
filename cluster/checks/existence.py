"""That a cluster has existed, known apart from its data files.

Where a disk is not mounted, or somebody has removed the volumes, it looks like a new one.

A record says it (``config.records``), and its backups do. So do runs of load, where no record tells
whose they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.config import addresses, kept, records, shown
from cluster.config.deployment import Deployment
from cluster.config.records import Record
from cluster.refusal import Refusal
from cluster.runtimes import of
from cluster.tigerbeetle.data_file import Past


def past(deployment: Deployment) -> Past:
    """What is known of the cluster apart from its data files."""
    runtime, file = of(deployment), _file(deployment)
    record = records.read(file)
    ended = record.ended if record else None
    backups = [b for b in _backups(deployment) if ended is None or b[1] > ended]
    traces = [f"backup {shown(path)} of {_day(at)}" for path, at in backups[-1:]]
    if record and not record.ended:
        traces.append(f"noted in {shown(file)} on {_day(record.since)}")
    if not any(file.parent.glob(_name(deployment, "*"))):
        traces += [f"run {shown(path)} of {_day(at)}" for path, at in _runs(deployment)[-1:]]
    newest = shlex.quote(shown(backups[-1][0])) if backups else ""
    return Past(
        place=runtime.place,
        traces=tuple(traces),
        restore=f"make restore {deployment.named} FROM=" + newest,
        recover="" if deployment.is_emulator else f"make recover {deployment.named}",
        new=runtime.new,
        anew=f"{runtime.new.removesuffix(' BOOTSTRAP=yes')} BOOTSTRAP=yes",
    )


def require_files(
    what: str, deployment: Deployment, missing: Sequence[int], spared: int = 0
) -> None:
    """Raises Refusal where more than ``spared`` replicas have no data file."""
    count = len(deployment.cluster.replicas)
    if len(missing) > spared:
        known = past(deployment)
        who = "any replica" if len(missing) == count else f"replica {', '.join(map(str, missing))}"
        wanted = f"the data files of {count - spared or 'all'} of {count} replicas"
        found, fix = f"none of {who} {known.place}", known.fix(missing, count)
        raise Refusal(what, expected=wanted, found=found, fix=fix)


def is_new_meant() -> bool:
    """BOOTSTRAP=yes: a new cluster, whatever has been there before."""
    return os.environ.get("BOOTSTRAP") == "yes"


def is_noted(deployment: Deployment) -> bool:
    """A record says that it exists, and that this inventory has deployed it."""
    record = records.read(_file(deployment))
    return record is not None and record.is_by(deployment.inventory)


def note(deployment: Deployment) -> None:
    """Write the record of a cluster that has its data files; nothing to do where it is."""
    before = records.read(_file(deployment))
    if not is_noted(deployment):
        since = before.since if before and not before.ended else datetime.now(UTC)
        _write(deployment, since)


def end(deployment: Deployment) -> None:
    """Its data is removed on purpose: nothing that is older says any more that it exists."""
    now, before = datetime.now(UTC), records.read(_file(deployment))
    _write(deployment, before.since if before else now, now)


def _file(deployment: Deployment) -> Path:
    place = hashlib.sha256(of(deployment).place.encode()).hexdigest()[:12]
    return kept.records() / deployment.name / _name(deployment, place)


def _name(deployment: Deployment, place: str) -> str:
    return f"{deployment.engine}-{deployment.cluster.id}-{place}.json"


def _write(deployment: Deployment, since: datetime, ended: datetime | None = None) -> None:
    """As a whole, or not at all. Nothing fails for want of it: it is told, and that is all."""
    file, inventory = _file(deployment), str(deployment.inventory.resolve())
    place = of(deployment).place
    record = Record(place=place, since=since, ended=ended, inventory=inventory)
    partial = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(record.model_dump_json(indent=1) + "\n")
        partial.replace(file)
    except OSError as error:
        print(
            f"  {file}: not written ({error.strerror}): a lost disk may look new", file=sys.stderr
        )


def _backups(deployment: Deployment) -> list[tuple[Path, datetime]]:
    """This cluster's, and when each was taken, the newest last."""
    wanted = {"cluster_id": str(deployment.cluster.id), "engine": deployment.engine}

    def taken(said: dict[str, Any]) -> datetime | None:
        return datetime.fromisoformat(said["taken_at"]) if wanted.items() <= said.items() else None

    return _dated(kept.backups() / deployment.name, "manifest.json", taken)


def _runs(deployment: Deployment) -> list[tuple[Path, datetime]]:
    """Those of load on this cluster, and when each began, the newest last."""
    wanted = {
        "deployment": deployment.name,
        "engine": deployment.engine,
        "cluster_id": str(deployment.cluster.id),
        "addresses": addresses(deployment.listed),
    }

    def began(said: dict[str, Any]) -> datetime | None:
        is_its = wanted.items() <= said["target"].items()
        return datetime.fromtimestamp(said["started"], UTC) if is_its else None

    return _dated(kept.runs(), "run.json", began)


def _dated(
    directory: Path, name: str, at: Callable[[dict[str, Any]], datetime | None]
) -> list[tuple[Path, datetime]]:
    """The directories whose file of this name can be read, and has a date, the newest last."""
    found = []
    for file in directory.glob(f"*/{name}"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            if date := at(json.loads(file.read_text())):
                found.append((file.parent, date))
    return sorted(found, key=lambda each: each[1])


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
