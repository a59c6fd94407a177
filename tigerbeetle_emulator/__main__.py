"""The command line, with the genuine server's verbs: format, start, version, inspect."""

from __future__ import annotations

import argparse
import errno
import re
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from .inspect_file import superblock_lines
from .protocol import aegis
from .protocol.wire import MESSAGE_SIZE_MAX, Author, release_text
from .server.addresses import Address, AddressError, parse
from .server.faults import DURATIONS, RATES, Faults
from .server.journal import DataFileError, FileJournal, Identity, format_file
from .server.log import logger, to_stderr
from .server.relay import Relay
from .server.replica import RELEASE_MIN_NUMBER, RELEASE_NUMBER, Replica
from .server.server import CLIENTS_MAX, CLIENTS_MAX_DEVELOPMENT, Server

BANNER = "EMULATOR: one node, no replication, not TigerBeetle; for tests and rehearsals only"
RELEASE_TEXT = release_text(RELEASE_NUMBER)
REQUEST_SIZE_DEVELOPMENT = 32 * 1024
PIPELINE_REQUESTS_MAX = 56
REPLAY_PROGRESS = 2.0  # seconds between lines while replaying


class _Parser(argparse.ArgumentParser):
    """Errors as the genuine command line prints them: one line, exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Print and leave."""
        fail(message)


def fail(message: str) -> NoReturn:
    """End with one line on stderr and exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def parser() -> argparse.ArgumentParser:
    """All verbs and options."""
    top = _Parser(prog="tigerbeetle-emulator", description=BANNER, allow_abbrev=False)
    verbs = top.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    verb = verbs.add_parser("format", help="create a data file", allow_abbrev=False)
    verb.set_defaults(run=command_format)
    verb.add_argument("--cluster", type=int, help="cluster id; random when left out")
    verb.add_argument("--replica", type=int, required=True, help="index of this replica, from 0")
    verb.add_argument("--replica-count", type=int, required=True)
    verb.add_argument("--development", action="store_true", help="accepted, ignored")
    verb.add_argument("path", type=Path)
    verb = verbs.add_parser("start", help="serve a data file", allow_abbrev=False)
    verb.set_defaults(run=command_start)
    verb.add_argument("--addresses", required=True, help="of all replicas, in order")
    verb.add_argument("--development", action="store_true", help="8 clients, requests of 32 KiB")
    verb.add_argument(
        "--sync",
        choices=("never", "every-request"),
        default="never",
        help="when the journal reaches the disk: left to the system (a killed process loses "
        "nothing, a power failure may), or before every reply",
    )
    verb.add_argument(
        "--limit-pipeline-requests",
        type=int,
        metavar="N",
        help="queued requests, 0..56: 8 more clients than this can be connected (24)",
    )
    verb.add_argument(
        "--limit-request", type=_size, metavar="SIZE", help="largest message, 4KiB..1MiB"
    )
    verb.add_argument(
        "--serve-all", action="store_true", help="listen on all addresses, not only on its own"
    )
    add_fault_options(verb)
    for option in IGNORED_WITH_VALUE:
        verb.add_argument(option, help=argparse.SUPPRESS)
    for option in IGNORED_FLAGS:
        verb.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    verb.add_argument("path", type=Path)
    verb = verbs.add_parser("version", help="print the release", allow_abbrev=False)
    verb.set_defaults(run=command_version)
    verb.add_argument("--verbose", action="store_true")
    verb = verbs.add_parser("inspect", help="what a data file belongs to", allow_abbrev=False)
    verb.set_defaults(run=command_inspect)
    verb.add_argument("what", choices=("superblock",))
    verb.add_argument("path", type=Path)
    return top


def _size(text: str) -> int:
    """A size such as 32KiB, as the genuine command line writes it."""
    match = re.fullmatch(r"(\d+)(KiB|MiB|)", text)
    size = int(match[1]) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[match[2]] if match else 0
    if not 4096 <= size <= MESSAGE_SIZE_MAX:
        raise argparse.ArgumentTypeError(f"expected 4KiB..1MiB, found {text}")
    return size


def limits(arguments: argparse.Namespace) -> tuple[int, int]:
    """Clients connected at once, and the size of the largest message."""
    clients = CLIENTS_MAX_DEVELOPMENT if arguments.development else CLIENTS_MAX
    queued = arguments.limit_pipeline_requests
    if queued is not None:
        if not 0 <= queued <= PIPELINE_REQUESTS_MAX:
            fail(f"--limit-pipeline-requests: expected 0..{PIPELINE_REQUESTS_MAX}, found {queued}")
        clients = CLIENTS_MAX_DEVELOPMENT + queued
    size = REQUEST_SIZE_DEVELOPMENT if arguments.development else MESSAGE_SIZE_MAX
    return clients, arguments.limit_request or size


# Options of the genuine server that change nothing here.
IGNORED_WITH_VALUE = (
    "--cache-grid",
    "--cache-accounts",
    "--cache-transfers",
    "--cache-transfers-pending",
    "--memory-lsm-manifest",
    "--memory-lsm-compaction",
    "--limit-storage",
    "--statsd",
    "--trace",
)
IGNORED_FLAGS = ("--experimental", "--log-debug", "--log-trace")


def add_fault_options(verb: argparse.ArgumentParser) -> None:
    """The options of `start` that make it misbehave: --fault-<field of Faults>."""
    group = verb.add_argument_group("faults, for testing clients (durations in seconds)")
    group.add_argument("--fault-seed", type=int, default=0, help="repeat the same choices")
    described = {"latency": "delay every reply", "latency_jitter": "and up to this"}
    for name in (*DURATIONS, *RATES):
        group.add_argument(
            f"--fault-{name.replace('_', '-')}",
            type=float,
            default=getattr(Faults, name),
            metavar="SECONDS" if name in DURATIONS else "RATE",
            help=described.get(name),
        )


def command_format(arguments: argparse.Namespace) -> None:
    """Create a data file; never over an existing one."""
    count, index = arguments.replica_count, arguments.replica
    if not 1 <= count <= 6:
        fail(f"--replica-count: expected 1..6, found {count}")
    if not 0 <= index < count:
        fail(f"--replica: expected 0..{count - 1}, found {index}")
    cluster = secrets.randbits(128) if arguments.cluster is None else arguments.cluster
    if not 0 <= cluster < 1 << 128:
        fail(f"--cluster: expected an unsigned 128-bit integer, found {cluster}")
    if cluster == 0:
        logger().warning("a cluster id of 0 is reserved for testing and benchmarking")
    logger("io").info(f'creating "{arguments.path}"...')
    try:
        format_file(arguments.path, Identity(cluster, index, count, RELEASE_NUMBER))
    except FileExistsError:
        fail("PathAlreadyExists")
    except OSError as error:
        fail(f"{arguments.path}: {error.strerror}")
    logger("main").info(f"{index}: formatted: cluster={cluster} replica_count={count}")


def command_start(arguments: argparse.Namespace) -> None:
    """Serve a data file until SIGTERM or SIGINT."""
    try:
        addresses = parse(arguments.addresses)
        faults = Faults(
            **{name[6:]: value for name, value in vars(arguments).items() if name[:6] == "fault_"}
        )
        logger("io").info(f'opening "{arguments.path}"...')
        journal = FileJournal(arguments.path, sync=arguments.sync == "every-request")
    except (AddressError, DataFileError, ValueError) as error:
        fail(str(error))
    identity = journal.identity
    if len(addresses) != identity.replica_count:
        fail(f"--addresses: expected {identity.replica_count} as formatted, found {len(addresses)}")
    logger("main").info(f"release={RELEASE_TEXT}")
    logger("main").info(BANNER)
    logger("main").info(f"checksum={aegis.IMPLEMENTATION} sync={arguments.sync}")
    given = vars(arguments)
    options = (*IGNORED_WITH_VALUE, *IGNORED_FLAGS)
    ignored = [option for option in options if given[option[2:].replace("-", "_")]]
    if ignored:
        logger("main").info(f"without effect here: {' '.join(ignored)}")
    if faults.describe():
        logger("faults").warning(f"misbehaving on request: {faults.describe()}")
    try:
        if identity.replica and not arguments.serve_all:
            serve_relay(arguments, identity, addresses)
        else:
            serve_ledger(arguments, journal, addresses, faults)
    except DataFileError as error:
        fail(str(error))
    except OSError as error:
        name = "AddressInUse" if error.errno == errno.EADDRINUSE else str(error.strerror)
        fail(f"{name}: cannot listen on {arguments.addresses}; is another server running there?")


def serve_ledger(
    arguments: argparse.Namespace, journal: FileJournal, addresses: list[Address], faults: Faults
) -> None:
    """Replay the journal, then serve: the replica with index 0, or all of them."""
    identity = journal.identity
    clients, request_size = limits(arguments)
    replica = Replica(identity.cluster, identity.replica_count, journal, request_size)
    own = addresses if arguments.serve_all else [addresses[identity.replica]]
    server = Server(replica, own, clients_max=clients, faults=faults)
    replay(replica, journal)
    _serve(server, identity, arguments, "0N", "primary")


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


def serve_relay(
    arguments: argparse.Namespace, identity: Identity, addresses: list[Address]
) -> None:
    """Pass connections on to replica 0: what the replicas after the first do."""
    index, cluster = identity.replica, identity.cluster.to_bytes(16, "little")
    author = Author(cluster, identity.replica_count, index, RELEASE_NUMBER)
    clients, _ = limits(arguments)
    relay = Relay(author, addresses[index], addresses[0], clients_max=clients)
    _serve(relay, identity, arguments, f"{index}n", "backup")


def _serve(
    server: Server | Relay, identity: Identity, arguments: argparse.Namespace, who: str, role: str
) -> None:
    """Say what it is and where it listens, then serve until a signal.

    Ports that the system chose are printed on stdout too, as the genuine server does.
    """
    view = f"view={identity.replica_count}..{identity.replica_count}"
    change = f"transition_to_normal_from_view_change_status: {view} {role}"
    logger("replica").info(f"{who}: {change}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    for address in server.addresses:
        place = f"cluster={identity.cluster}: listening on {address}"
        logger("main").info(f"{identity.replica}: {place}")
    if any(address.port == 0 for address in parse(arguments.addresses)):
        print(*(address.port for address in server.addresses), sep=",", flush=True)
    server.run()


def command_version(arguments: argparse.Namespace) -> None:
    """Print the release that is emulated."""
    print(f"TigerBeetle EMULATOR version {RELEASE_TEXT}")
    if arguments.verbose:
        print(
            f"\n{BANNER}\n\nprocess.release={RELEASE_TEXT}"
            f"\nprocess.release_client_min={release_text(RELEASE_MIN_NUMBER)}"
            f"\ncluster.clients_max=64\ncluster.message_size_max={MESSAGE_SIZE_MAX}"
            f"\nprocess.checksum={aegis.IMPLEMENTATION}"
        )


def command_inspect(arguments: argparse.Namespace) -> None:
    """Print what a data file belongs to."""
    try:
        print("\n".join(superblock_lines(arguments.path)))
    except DataFileError as error:
        fail(str(error))


def main() -> None:
    """Entry point of `tigerbeetle-emulator` and `python -m tigerbeetle_emulator`."""
    to_stderr()
    arguments = parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
