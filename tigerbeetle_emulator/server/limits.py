"""How many clients at once, and how large their requests: the genuine server's limits."""

from __future__ import annotations

from typing import NamedTuple

from ..protocol.wire import MESSAGE_SIZE_MAX
from .server import CLIENTS_MAX, CLIENTS_MAX_DEVELOPMENT

PIPELINE_REQUESTS = range(58)  # clients beyond those that a development server has
REQUEST_SIZES = range(4096, MESSAGE_SIZE_MAX + 1)  # bytes, header included
REQUEST_SIZE_DEVELOPMENT = 32 * 1024


class Limits(NamedTuple):
    """Clients connected at once; bytes of the largest message."""

    clients: int
    request_size: int


def limits(
    *, development: bool = False, pipeline_requests: int | None = None, request: int | None = None
) -> Limits:
    """What the genuine server's --development, --limit-pipeline-requests and --limit-request mean.

    Raises ValueError for what it refuses, too.
    """
    queued = pipeline_requests
    if queued is None:
        queued = 0 if development else CLIENTS_MAX - CLIENTS_MAX_DEVELOPMENT
    if queued not in PIPELINE_REQUESTS:
        raise ValueError(f"limit_pipeline_requests: expected 0..57, found {queued}")
    size = request
    if size is None:
        size = REQUEST_SIZE_DEVELOPMENT if development else MESSAGE_SIZE_MAX
    if size not in REQUEST_SIZES:
        raise ValueError(f"limit_request: expected 4096..{MESSAGE_SIZE_MAX} bytes, found {size}")
    return Limits(CLIENTS_MAX_DEVELOPMENT + queued, size)
