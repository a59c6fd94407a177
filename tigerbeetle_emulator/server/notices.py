"""What a person is told when a client will wait for ever, or fail, for a reason it cannot see.

Such a client comes back every second: the same words are a warning once, and for debugging only
from then on.
"""

from __future__ import annotations

import logging

from ..protocol.wire import RELEASE, RELEASE_CLIENT_MIN, EvictionReason, Frame, release_text
from .log import logger

_WORDS_MAX = 1024  # remembered; a new client has words of its own
_EVICTED = {
    EvictionReason.NO_SESSION: "its session is not known here, or no longer: 64 sessions are kept, "
    "and the one idle for longest gives way to a new client",
    EvictionReason.CLIENT_RELEASE_TOO_LOW: "the oldest release that may connect is {oldest}",
    EvictionReason.CLIENT_RELEASE_TOO_HIGH: "the newest release emulated is {newest}: install "
    "tigerbeetle=={newest}, or an emulator that is as new as the client",
    EvictionReason.INVALID_REQUEST_OPERATION: "it asked for an operation that does not exist",
    EvictionReason.INVALID_REQUEST_BODY: "its request was malformed",
    EvictionReason.INVALID_REQUEST_BODY_SIZE: "its request was larger than the server takes",
    EvictionReason.SESSION_TOO_LOW: "it has begun a newer session meanwhile",
    EvictionReason.SESSION_RELEASE_MISMATCH: "its session belongs to a client of another release",
}


class Notices:
    """Remembers what it has told, for one server."""

    def __init__(self, scope: str) -> None:
        self._log = logger(scope)
        self._told: set[str] = set()

    def tell(self, words: str) -> None:
        """Warn, the first time that there is this to say."""
        self._log.log(logging.DEBUG if words in self._told else logging.WARNING, "%s", words)
        if len(self._told) >= _WORDS_MAX:
            self._told.clear()
        self._told.add(words)

    def forget(self, words: str) -> None:
        """Warn again when it happens again."""
        self._told.discard(words)

    def evicted(self, frame: Frame, eviction: bytes) -> None:
        """A client is told that its session has ended; `frame` is of what it asked."""
        client, reason = int.from_bytes(eviction[128:144], "little"), EvictionReason(eviction[255])
        oldest, newest = (".".join(map(str, release)) for release in (RELEASE_CLIENT_MIN, RELEASE))
        self.tell(
            f"client {client:x} of release {release_text(frame.release)} evicted, its calls fail "
            f"({reason.name.lower()}): {_EVICTED[reason].format(oldest=oldest, newest=newest)}"
        )


def crowded(clients_max: int) -> str:
    """What to tell when there is no room for another client."""
    return (
        f"{clients_max} clients are connected, which is all there is room for: another waits until "
        "one of them closes; close those that are done with, or raise the limit"
    )
