"""What workers of a load need on their hosts, brought by ``make load`` before it starts any."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import FactBase, deploy
from pyinfra.operations import files

from loadtests.hosts import bundle, observed
from loadtests.hosts.observed import Observed
from tasks.support.act import shell
from tasks.support.here import guarded

_UNPACK_TIMEOUT_S = 600


class LoadHostObservation(FactBase[Observed]):
    """``files/load/observe.sh`` on the host, read."""

    def command(self) -> str:
        """The shell line to run there."""
        return observed.command()

    def process(self, output: list[str]) -> Observed:
        """What it printed."""
        return observed.parse(output)


@deploy("Bring what a load worker needs")
def bring() -> None:
    """The locked environment, and our own code: each once, under a name of its content."""
    seen: Observed = host.get_fact(LoadHostObservation) or Observed()
    with guarded():
        observed.check_machine(host.name, seen)
        parcels = [(each, each.packed()) for each in bundle.wanted(seen)]
    for each, parcel in parcels:
        if each.name in seen.bundles:
            host.noop(f"{each.place} is there")
            continue
        there = f"{bundle.PLACE}/{parcel.name}"
        files.put(
            name=f"Carry {each.name} there",
            src=str(parcel),
            dest=there,
            mode="644",
            create_remote_dir=True,
        )
        line = bundle.unpack(each, there, seen.python_path)
        shell(f"Unpack {each.name}", line, _timeout=_UNPACK_TIMEOUT_S)
