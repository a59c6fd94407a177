"""What is noted of a cluster that exists, apart from its data: where it is, and whose its name is.

    .clusters/DEPLOYMENT/ENGINE-ID-PLACE.json   where, since and until when, and by which inventory

State, backups and timers are a deployment's by its name, so no two inventories may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from cluster.config import kept
from cluster.config.loading import shown
from cluster.refusal import Refusal


class Record(BaseModel, frozen=True):
    """What is noted of one cluster."""

    place: str
    since: datetime
    ended: datetime | None = None  # its data was removed on purpose: what is older says nothing
    inventory: str = ""  # the file that has deployed it last; empty: noted before files were

    def is_by(self, inventory: Path) -> bool:
        """It exists, and this file has deployed it."""
        return self.ended is None and Path(self.inventory) == inventory.resolve()


def read(file: Path) -> Record | None:
    """None where there is none. One that cannot be read is one: whoever made it had a cluster."""
    try:
        return Record.model_validate_json(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return Record(place="", since=datetime.fromtimestamp(0, UTC))


def of_name(name: str) -> list[Record]:
    """The records of all clusters that were deployed under this name."""
    found = map(read, sorted((kept.records() / name).glob("*.json")))
    return [record for record in found if record]


def refuse_namesake(
    name: str, inventory: Path, known: Iterable[Record], carries: Callable[[Path, str], bool]
) -> None:
    """Refuse a name under which another inventory has deployed, and that it still carries.

    A file that was moved or removed, or that ``carries`` another name by now, is nobody's rival.
    Raises Refusal.
    """
    for record in known:
        other = Path(record.inventory)
        if record.ended or not other.is_file() or other == inventory.resolve():
            continue
        if carries(other, name):
            raise Refusal(
                shown(inventory),
                expected="a deployment's name that no other inventory has",
                found=f"{name!r}, as which {shown(other)} has deployed: they would share state, "
                "backups and timers",
                fix="name one of them otherwise, or remove the file that is no longer used",
            )
