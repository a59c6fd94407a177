"""Serve an emulator from a thread of this process: `tigerbeetle_emulator.run()`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from .embedded import Emulator
from .server.addresses import HOST_DEFAULT, REPLICAS_MAX, Address, parse
from .server.clock import Clock
from .server.faults import Faults, checked
from .server.journal import DataFileError, FileJournal, Identity, format_file
from .server.limits import limits
from .server.replica import RELEASE_NUMBER, Replica

ADDRESS_VARIABLE = "TB_ADDRESS"  # where TigerBeetle's own samples look


@contextlib.contextmanager
def run(
    *,
    cluster: int = 0,
    replicas: int | None = None,
    port: int | None = None,
    addresses: str | None = None,
    path: str | Path | None = None,
    faults: Faults | None = None,
    clock: Literal["own", "test"] = "own",
    development: bool = False,
    limit_pipeline_requests: int | None = None,
    limit_request: int | None = None,
    export: bool = False,
) -> Iterator[Emulator]:
    """Serve an emulator from a thread of this process while the `with` block lasts.

    It listens on a free port of 127.0.0.1, or on as many as it has `replicas`, or on this `port`,
    or on these `addresses`, written as for the command line. Without `path` the ledger lives in
    memory; with it, in that data file, which is created if need be and holds the ledger of the
    previous run otherwise. `clock="test"` follows the time that freezegun or time-machine give the
    test, instead of the machine's. `development`, `limit_pipeline_requests` and `limit_request`
    (bytes) are the genuine server's. `export` sets TB_ADDRESS meanwhile.

    Raises ValueError for arguments that the genuine server would refuse, OSError for a port that
    is taken, DataFileError for a file of another cluster.
    """
    if clock not in ("own", "test"):
        raise ValueError(f"clock: expected 'own' or 'test', found {clock!r}")
    if not 0 <= cluster < 1 << 128:
        raise ValueError(f"cluster: expected an unsigned 128-bit integer, found {cluster}")
    places = _places(replicas, port, addresses)
    bounds = limits(
        development=development, pipeline_requests=limit_pipeline_requests, request=limit_request
    )
    given = Faults() if faults is None else checked(faults)
    owner = os.getpid()
    with contextlib.ExitStack() as held:
        journal = _journal(Path(path), cluster, len(places)) if path else None
        replica = Replica(cluster, len(places), journal, bounds.request_size)
        time = Clock(follows=clock == "test")
        if journal:
            held.callback(journal.close)
            for entry in journal.replay():
                replica.replay(entry)
            time.not_before(replica.timestamp)
        emulator = _listening(replica, places, given, time, bounds.clients)
        held.callback(emulator.close)
        if export:
            held.enter_context(_exported(emulator.address))
        try:
            yield emulator
        finally:
            if os.getpid() != owner:
                held.pop_all()  # a forked child that unwinds: all this is its parent's


def _places(replicas: int | None, port: int | None, addresses: str | None) -> list[Address]:
    """Where to listen; port 0 is a free one. Raises ValueError."""
    if addresses is not None:
        places = parse(addresses)
        if port is not None or replicas not in (None, len(places)):
            raise ValueError(
                f"addresses: expected neither port nor another number of replicas beside "
                f"{addresses!r}, found port={port}, replicas={replicas}"
            )
        return places
    count = 1 if replicas is None else replicas
    if not 1 <= count <= REPLICAS_MAX:
        raise ValueError(f"replicas: expected 1..{REPLICAS_MAX}, found {replicas}")
    if port is not None and count > 1:
        raise ValueError(f"port: expected addresses for {count} replicas, found one port, {port}")
    if not 0 <= (port or 0) <= 65535:
        raise ValueError(f"port: expected 0..65535, found {port}")
    return [Address(HOST_DEFAULT, port or 0)] * count


def _listening(
    replica: Replica, places: list[Address], faults: Faults, clock: Clock, clients_max: int
) -> Emulator:
    try:
        return Emulator(replica, places, faults, clock, clients_max)
    except OSError as error:
        where = ",".join(map(str, places))
        raise OSError(
            error.errno,
            f"expected to listen on {where}, found: {error.strerror}; without `port` and "
            "`addresses` a free port is taken",
        ) from error


@contextlib.contextmanager
def _exported(address: str) -> Iterator[None]:
    """Set TB_ADDRESS, and put back what it was."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ADDRESS_VARIABLE, None)
        else:
            os.environ[ADDRESS_VARIABLE] = before


def _journal(path: Path, cluster: int, replicas: int) -> FileJournal:
    expected = Identity(cluster, 0, replicas, RELEASE_NUMBER)
    if not path.exists():
        format_file(path, expected)
    journal = FileJournal(path)
    if journal.identity[:3] != expected[:3]:
        journal.close()
        raise DataFileError(f"{path}: expected {expected}; this file is of {journal.identity}")
    return journal
