"""Which upgrades are allowed: from the release that runs to the one that is wanted. Pure.

The program of a release contains the older releases that it can upgrade from. A replica starts as
the release of its data file, and all replicas change to the new one together. So the program itself
is asked what it can do. The only list kept here is that of releases known to be bad.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.refusal import Refusal

#: Releases that TigerBeetle's own CHANGELOG.md advises to skip, and why.
BAD_RELEASES: Mapping[str, str] = {
    "0.16.77": "may stop committing (tigerbeetle #3581, #3586): take 0.16.78",
    "0.17.5": "may crash on upgrade (tigerbeetle #3808): take 0.17.8",
    "0.17.6": "may crash (tigerbeetle #3802): take 0.17.8",
    "0.17.7": "may crash (tigerbeetle #3802): take 0.17.8",
}

_FORM = re.compile(r"\d+\.\d+\.\d+")
_RELEASE = re.compile(r"^process\.release=(\S+)$", re.MULTILINE)
_CLIENT_MIN = re.compile(r"^process\.release_client_min=(\S+)$", re.MULTILINE)
_BUNDLED = re.compile(r"^multiversioning\.releases_bundled=\{ (.*) \}$", re.MULTILINE)


@dataclass(frozen=True)
class Offer:
    """The releases in a server program: its own, older ones, and its oldest client's."""

    release: str
    bundled: tuple[str, ...]
    client_min: str


def parse_offer(output: str) -> Offer:
    """Read what ``tigerbeetle version --verbose`` prints. Raises Refusal."""
    release, client_min = _RELEASE.search(output), _CLIENT_MIN.search(output)
    if release is None or client_min is None:
        last = output.strip().splitlines()[-1:] or ["nothing"]
        raise Refusal(
            f"the new server: expected what `version --verbose` prints, found {last[0]}. "
            "Fix: name a genuine tigerbeetle release"
        )
    bundled = _FORM.findall(found[1]) if (found := _BUNDLED.search(output)) else [release[1]]
    return Offer(release[1], tuple(bundled), client_min[1])


def check_step(current: str, target: str, named: str) -> None:
    """Check that the target is a newer release, and not a bad one. ``named`` is the inventory.

    Raises Refusal.
    """
    if not _FORM.fullmatch(target):
        raise Refusal(f"TO: expected a release such as {current}, found {target!r}. Fix: TO=x.y.z")
    if target == current:
        raise Refusal(
            f"TO: expected a newer release than {current}, found the one that is configured. "
            f"Fix: nothing, if `make status {named}` shows it on every replica"
        )
    if triple(target) < triple(current):
        raise Refusal(
            f"TO: expected a newer release than {current}, found {target}: no release reads a "
            "newer one's data files. Fix: stay, or restore a backup taken before the upgrade"
        )
    if target in BAD_RELEASES:
        raise Refusal(
            f"TO: expected a release that is not known to be bad, found {target}, which "
            f"{BAD_RELEASES[target]}. Fix: skip it"
        )


def check_running(running: Mapping[int, str], current: str, target: str, named: str) -> None:
    """Refuse replicas that run neither the configured release nor, after an interruption, TO."""
    found = [
        f"replica {index}: {release or 'none'}"
        for index, release in sorted(running.items())
        if release not in (current, target)
    ]
    if found:
        raise Refusal(
            f"the cluster: expected release {current} on every replica, as configured, found "
            f"{', '.join(found)}. Fix: bring all replicas up first (make up {named}), with the "
            "release that runs in the env file"
        )


def check_offer(offer: Offer, current: str, target: str) -> None:
    """Check that the new program is the target and contains the current one. Raises Refusal."""
    if offer.release != target:
        raise Refusal(
            f"TO: expected the new server to be {target}, found {offer.release}. "
            "Fix: bring the release that TO names, or name the one that is here"
        )
    if current not in offer.bundled:
        oldest = min(offer.bundled, key=triple)
        raise Refusal(
            f"TO: expected {target} to upgrade from {current}, found that it goes back to "
            f"{oldest} only. Fix: upgrade to a release in between first"
        )


def check_client(client: str, offer: Offer) -> None:
    """Check that the target still serves this installation's client. Raises Refusal."""
    if triple(client) < triple(offer.client_min):
        raise Refusal(
            f"tigerbeetle client: expected {offer.client_min} or newer, which {offer.release} "
            f"serves, found {client}. Fix: upgrade the clients that far first"
        )


def remaining(running: Iterable[str], target: str) -> int:
    """How many replicas do not run the target yet."""
    return sum(release != target for release in running)


def triple(release: str) -> tuple[int, ...]:
    """A release as numbers, to be compared."""
    return tuple(int(part) for part in release.split("."))
