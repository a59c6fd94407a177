"""What `start` takes: the genuine server's options, and the emulator's own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..server.addresses import Address, AddressError, parse, parse_one
from ..server.faults import FIELDS, Faults, check
from ..server.limits import PIPELINE_REQUESTS, limits
from .flags import PATH, Flag, UsageError, Values
from .values import Size, choice, integer, ratio, size, text

_PIPELINE_REQUESTS_MAX = PIPELINE_REQUESTS[-1]
_REQUEST_SIZE = Size(1, "MiB")
_STATSD_PORT = 8125
_TICK_MS = 10


class Start(NamedTuple):
    """Serve a data file."""

    path: Path
    addresses: list[Address]
    is_zero: bool  # the genuine server's contract with a parent process: `--addresses=0`
    clients: int
    request_size: int  # bytes
    cache_grid: Size | None
    is_synced: bool
    serve_all: bool
    log_debug: bool
    faults: Faults
    ignored: list[str]


_STABLE = [
    Flag("--addresses", lambda given: (given == "0", parse(given)), required=True),
    Flag("--cache-grid", size),
    Flag("--development"),
    Flag("--experimental"),
]
_EXPERIMENTAL = [
    Flag("--limit-storage", size),
    Flag("--limit-pipeline-requests", integer(32)),
    Flag("--limit-request", size),
    Flag("--cache-accounts", size),
    Flag("--cache-transfers", size),
    Flag("--cache-transfers-pending", size),
    Flag("--memory-lsm-manifest", size),
    Flag("--memory-lsm-compaction", size),
    Flag("--trace", text),
    Flag("--log-debug"),
    Flag("--log-trace"),
    Flag("--timeout-prepare-ms", integer(64)),
    Flag("--timeout-grid-repair-message-ms", integer(64)),
    Flag("--commit-stall-probability", ratio),
    Flag("--commit-stall-lag-min", integer(32)),
    Flag("--commit-stall-lag-max", integer(32)),
    Flag("--commit-stall-multiple-max", integer(16)),
    Flag("--replicate-star"),
    Flag("--statsd", text),
    Flag("--aof-file", text),
    Flag("--aof"),
    Flag("--aof-recovery"),
]


def _fault(name: str) -> Flag:
    def read_fault(given: str) -> float:
        try:
            value = int(given) if name == "seed" else float(given)
        except ValueError:
            kind = "an integer" if name == "seed" else "a number"
            raise ValueError(f"expected {kind}, found '{given}'") from None
        try:
            check(name, value)
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{name}: ")) from None
        return value

    return Flag(f"--fault-{name.replace('_', '-')}", read_fault)


#: The emulator's own.
_OWN = [Flag("--sync", choice("never", "every-request")), Flag("--serve-all"), *map(_fault, FIELDS)]
FLAGS = [*_STABLE, *_EXPERIMENTAL, *_OWN]
#: Whatever is not among these has no effect here.
_EFFECTIVE = {
    *(PATH, "--addresses", "--development", "--experimental", "--log-debug"),
    *("--limit-pipeline-requests", "--limit-request"),
    *(flag.name for flag in _OWN),
}


class _Bounds(NamedTuple):
    """Which sizes an option can have; how the multiple is called."""

    name: str
    least: Size
    most: Size
    multiple: Size | None = None
    called: str = "{}"


_STORAGE = _Bounds(
    *("--limit-storage", Size(1114624, "KiB"), Size(64, "TiB"), Size(4, "KiB")), "sector size ({})"
)
_REQUEST = _Bounds("--limit-request", Size(4, "KiB"), _REQUEST_SIZE)
_MANIFEST = _Bounds("--memory-lsm-manifest", Size(1, "MiB"), Size(4095, "MiB"), Size(1, "MiB"))
_COMPACTION = _Bounds(
    *("--memory-lsm-compaction", Size(10752, "KiB"), Size(2199023255040, "KiB")), Size(512, "KiB")
)
#: Bytes of what each cache holds: it counts them in 32 bits.
_CACHED = {
    "--cache-accounts": 128,
    "--cache-transfers": 128,
    "--cache-transfers-pending": 16,
    "--cache-grid": 512 << 10,
}


def start(given: Values) -> Start:
    """What these values ask for. Raises UsageError."""
    _refuse_experimental(given)
    queued = given.get("--limit-pipeline-requests")
    _within(given, _STORAGE)
    if queued is not None and queued > _PIPELINE_REQUESTS_MAX:
        raise UsageError(
            f"--limit-pipeline-requests: count {queued} exceeds maximum: {_PIPELINE_REQUESTS_MAX}"
        )
    for bounds in (_REQUEST, _MANIFEST, _COMPACTION):
        _within(given, bounds)
    _refuse_contradictions(given)
    for name, item in _CACHED.items():
        if name in given and given[name].bytes // item >= 1 << 32:
            raise UsageError(f"{name}: exceeds the limit")
    for name in ("--timeout-prepare-ms", "--timeout-grid-repair-message-ms"):
        _refuse_part_of_a_tick(name, given.get(name))
    if "--statsd" in given:
        _refuse_no_address("--statsd", given["--statsd"])
    largest = given.get("--limit-request")
    allowed = limits(
        development=given.get("--development", False),
        pipeline_requests=queued,
        request=largest.bytes if largest else None,
    )
    is_zero, addresses = given["--addresses"]
    faults = {name: given[f] for name in FIELDS if (f := _fault(name).name) in given}
    return Start(
        path=Path(given[PATH]),
        addresses=addresses,
        is_zero=is_zero,
        clients=allowed.clients,
        request_size=allowed.request_size,
        cache_grid=given.get("--cache-grid"),
        is_synced=given.get("--sync") == "every-request",
        serve_all=given.get("--serve-all", False),
        log_debug=given.get("--log-debug", False),
        faults=Faults(**faults),
        ignored=[name for name in given if given[name] is not False and name not in _EFFECTIVE],
    )


def _refuse_experimental(given: Values) -> None:
    if not given.get("--experimental"):
        for flag in _EXPERIMENTAL:
            if given.get(flag.name) not in (None, False):
                raise UsageError(
                    f"{flag.name} is marked experimental, add `--experimental` to continue."
                )


def _within(given: Values, bounds: _Bounds) -> None:
    found = given.get(bounds.name)
    if found is None:
        return
    if found.bytes > bounds.most.bytes:
        raise UsageError(f"{bounds.name}: size {found} exceeds maximum: {bounds.most}")
    if found.bytes < bounds.least.bytes:
        raise UsageError(f"{bounds.name}: size {found} is below minimum: {bounds.least}")
    if bounds.multiple and found.bytes % bounds.multiple.bytes:
        called = bounds.called.format(bounds.multiple)
        raise UsageError(f"{bounds.name}: size {found} must be a multiple of {called}")


def _refuse_contradictions(given: Values) -> None:
    file = given.get("--aof-file")
    if given.get("--aof") and file is not None:
        raise UsageError("--aof is mutually exclusive with --aof-file; give one of them")
    if file is not None and not file.endswith(".aof"):
        raise UsageError(f"--aof-file must end with .aof: '{file}'")
    if given.get("--log-trace") and not given.get("--log-debug"):
        raise UsageError("--log-debug must be provided when using --log-trace")


def _refuse_part_of_a_tick(name: str, milliseconds: int | None) -> None:
    if milliseconds == 0:
        raise UsageError(f"{name}: timeout 0ms be nonzero")
    if milliseconds is not None and milliseconds % _TICK_MS:
        raise UsageError(f"{name}: timeout {milliseconds}ms must be a multiple of {_TICK_MS}ms")


def _refuse_no_address(name: str, given: str) -> None:
    try:
        parse_one(given, _STATSD_PORT)
    except AddressError as error:
        raise UsageError(f"{name}: {error}") from None
