"""The command line, with the genuine server's verbs: format, start, version, inspect."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import signal
import sys
import threading
import time
from typing import NoReturn

from .command_line.flags import UsageError
from .command_line.help import BANNER, help_text
from .command_line.start import Start
from .command_line.values import Size
from .command_line.verbs import Format, Inspect, Version, read_command
from .inspect_file import superblock_lines
from .protocol import aegis
from .protocol.wire import MESSAGE_SIZE_MAX, Author, release_text
from .server.journal import DataFileError, FileJournal, Identity, format_file
from .server.log import logger, to_stderr
from .server.relay import Relay
from .server.replica import RELEASE_MIN_NUMBER, RELEASE_NUMBER, Replica
from .server.server import Server

RELEASE_TEXT = release_text(RELEASE_NUMBER)
CACHE_GRID_MIN = Size(32, "MiB")
_MAIN = logger("main")
REPLAY_PROGRESS = 2.0  # seconds between lines while replaying


def fail(message: str) -> NoReturn:
    """End with one line on stderr and exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def command_format(asked: Format) -> None:
    """Create a data file; never over an existing one."""
    cluster = asked.cluster
    if cluster is None:
        cluster = secrets.randbits(128)
        _MAIN.info("generated random cluster id: %d", cluster)
    elif cluster == 0:
        logger().warning("a cluster id of 0 is reserved for testing and benchmarking")
    say_ignored(asked.ignored)
    logger("io").info('creating "%s"...', asked.path)
    index, count = asked.replica, asked.replica_count
    try:
        format_file(asked.path, Identity(cluster, index, count, RELEASE_NUMBER))
    except FileExistsError:
        fail("PathAlreadyExists")
    except OSError as error:
        fail(f"{asked.path}: {error.strerror}")
    _MAIN.info("%d: formatted: cluster=%d replica_count=%d", index, cluster, count)


def say_ignored(flags: list[str]) -> None:
    """Name the genuine server's flags that change nothing here."""
    if flags:
        _MAIN.info("without effect here: %s", " ".join(flags))


def command_start(asked: Start) -> None:
    """Serve a data file until SIGTERM or SIGINT."""
    try:
        logger("io").info('opening "%s"...', asked.path)
        journal = FileJournal(asked.path, sync=asked.is_synced)
    except DataFileError as error:
        fail(str(error))
    identity, found = journal.identity, len(asked.addresses)
    needed = max(identity.replica_count, identity.replica + 1)
    if found < needed:
        fail(f"--addresses: expected {needed}, as formatted, found {found}: all must be provided")
    if asked.cache_grid and asked.cache_grid.bytes < CACHE_GRID_MIN.bytes:
        fail(f"Grid cache must be greater than {CACHE_GRID_MIN}. See --cache-grid")
    _MAIN.info("release=%s", RELEASE_TEXT)
    _MAIN.info(BANNER)
    sync = "every-request" if asked.is_synced else "never"
    _MAIN.info("checksum=%s sync=%s", aegis.IMPLEMENTATION, sync)
    say_ignored(asked.ignored)
    if asked.faults.describe():
        logger("faults").warning("misbehaving on request: %s", asked.faults.describe())
    try:
        if identity.replica and not asked.serve_all:
            serve_relay(asked, identity)
        else:
            serve_ledger(asked, journal)
    except DataFileError as error:
        fail(str(error))
    except OSError as error:
        name = "AddressInUse" if error.errno == errno.EADDRINUSE else str(error.strerror)
        listed = ",".join(map(str, asked.addresses))
        fail(f"{name}: cannot listen on {listed}; is another server running there?")


def serve_ledger(asked: Start, journal: FileJournal) -> None:
    """Replay the journal, then serve: the replica with index 0, or all of them."""
    identity = journal.identity
    replica = Replica(identity.cluster, identity.replica_count, journal, asked.request_size)
    own = asked.addresses if asked.serve_all else [asked.addresses[identity.replica]]
    server = Server(replica, own, clients_max=asked.clients, faults=asked.faults)
    replay(replica, journal)
    _serve(server, identity, asked, "0N", "primary")


def replay(replica: Replica, journal: FileJournal) -> None:
    """Take all journalled steps again, with a line every two seconds."""
    started = reported = time.monotonic()
    steps = 0
    for steps, entry in enumerate(journal.replay(), 1):
        replica.replay(entry)
        if time.monotonic() - reported > REPLAY_PROGRESS:
            reported = time.monotonic()
            logger("journal").info(f"0: replaying: {steps} steps so far")
    if journal.truncated:
        offset, size = journal.truncated
        torn = f"{size} bytes at {offset} truncated, of a request never acknowledged"
        logger("journal").warning(f"0: torn tail: {torn}")
    rows, seconds = len(replica.ledger.timestamps), time.monotonic() - started
    logger("journal").info(f"0: replayed {steps} steps, {rows} transfers in {seconds:.1f} s")


def serve_relay(asked: Start, identity: Identity) -> None:
    """Pass connections on to replica 0: what the replicas after the first do."""
    index, cluster = identity.replica, identity.cluster.to_bytes(16, "little")
    own, first = asked.addresses[index], asked.addresses[0]
    if own == first and own.port:
        fail(f"--addresses: expected another address for replica {index} than replica 0's, {own}")
    author = Author(cluster, identity.replica_count, index, RELEASE_NUMBER)
    relay = Relay(author, own, first, clients_max=asked.clients)
    _serve(relay, identity, asked, f"{index}n", "backup")


def _serve(server: Server | Relay, identity: Identity, asked: Start, who: str, role: str) -> None:
    """Say what it is and where it listens, then serve until a signal."""
    view = f"view={identity.replica_count}..{identity.replica_count}"
    change = f"transition_to_normal_from_view_change_status: {view} {role}"
    logger("replica").info(f"{who}: {change}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    for address in server.addresses:
        place = f"cluster={identity.cluster}: listening on {address}"
        logger("main").info(f"{identity.replica}: {place}")
    if asked.is_zero:
        obey_parent(server)
    elif asked.serve_all and any(address.port == 0 for address in asked.addresses):
        print(*(address.port for address in server.addresses), sep=",", flush=True)
    server.run()


def obey_parent(server: Server | Relay) -> None:
    """The genuine server's contract of `--addresses=0` with the program that started it.

    Prints the port and nothing else on stdout, closes it, and ends when stdin is closed.
    """
    print(server.addresses[0].port, flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # closed for the reader, and no socket can come to be called stdout
    os.close(nowhere)

    def wait() -> None:
        with contextlib.suppress(OSError):
            if sys.stdin:
                os.read(sys.stdin.fileno(), 1)
        _MAIN.info("stdin closed, exiting")
        server.stop()

    threading.Thread(target=wait, daemon=True).start()


def command_version(asked: Version) -> None:
    """Print the release that is emulated."""
    print(f"TigerBeetle EMULATOR version {RELEASE_TEXT}")
    if asked.verbose:
        print(
            f"\n{BANNER}\n\nprocess.release={RELEASE_TEXT}"
            f"\nprocess.release_client_min={release_text(RELEASE_MIN_NUMBER)}"
            f"\ncluster.clients_max=64\ncluster.message_size_max={MESSAGE_SIZE_MAX}"
            f"\nprocess.checksum={aegis.IMPLEMENTATION}"
        )


def command_inspect(asked: Inspect) -> None:
    """Print what a data file belongs to."""
    try:
        print("\n".join(superblock_lines(asked.path)))
    except DataFileError as error:
        fail(str(error))


def main() -> None:
    """Entry point of `tigerbeetle-emulator` and `python -m tigerbeetle_emulator`."""
    try:
        asked = read_command(sys.argv[1:])
    except UsageError as error:
        fail(str(error))
    to_stderr(logging.DEBUG if isinstance(asked, Start) and asked.log_debug else logging.INFO)
    if isinstance(asked, Format):
        command_format(asked)
    elif isinstance(asked, Start):
        command_start(asked)
    elif isinstance(asked, Version):
        command_version(asked)
    elif isinstance(asked, Inspect):
        command_inspect(asked)
    else:
        print(help_text(), end="")


if __name__ == "__main__":
    main()
