"""Messages of the client protocol: parse those of clients, build those of a replica.

A message is a 256-byte header and a body. The first 128 bytes of a header are common to all
commands, the rest depends on the command. All integers are little-endian. A header is *damaged*
when its checksum, size, cluster or command is wrong: the connection is closed. It is *invalid* when
it is intact but breaks a rule of its command: it is dropped in silence. The genuine server makes
the same distinction.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from .aegis import EMPTY, Buffer, checksum

HEADER_SIZE = 256
COMMAND_AT = 114  # of a header
MESSAGE_SIZE_MAX = 1 << 20
BODY_SIZE_MAX = MESSAGE_SIZE_MAX - HEADER_SIZE
RELEASE = (0, 17, 9)  # the newest release whose behaviour has been compared
RELEASE_CLIENT_MIN = (0, 16, 4)
REGISTER_BODY_SIZE = 256


class Command(IntEnum):
    """Kinds of message. A client sends 3 and 5 and understands 4, 8 and 18."""

    PING = 1
    PING_CLIENT = 3
    PONG_CLIENT = 4
    REQUEST = 5
    REPLY = 8
    EVICTION = 18


# Every number the protocol knows; the genuine server stops on any other.
COMMANDS_KNOWN = frozenset([*range(12), *range(13, 21), 24])


class EvictionReason(IntEnum):
    """Why a session ends; the client library raises an error chosen by this."""

    NO_SESSION = 1
    CLIENT_RELEASE_TOO_LOW = 2
    CLIENT_RELEASE_TOO_HIGH = 3
    INVALID_REQUEST_OPERATION = 4
    INVALID_REQUEST_BODY = 5
    INVALID_REQUEST_BODY_SIZE = 6
    SESSION_TOO_LOW = 7
    SESSION_RELEASE_MISMATCH = 8


class DamagedError(Exception):
    """The bytes received are no message of this cluster: the connection must be closed."""


class StrangerError(DamagedError):
    """An intact message for another cluster: its client comes back for ever."""


def release_number(release: tuple[int, int, int]) -> int:
    """A release triple as the protocol's u32, for example (0, 17, 9) -> 0x1109."""
    major, minor, patch = release
    return major << 16 | minor << 8 | patch


def release_text(number: int) -> str:
    """A release as people write it, for example 0x1109 -> 0.17.9."""
    return f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"


class Frame(NamedTuple):
    """The common half of a header (bytes 0..127) as far as anything reads it."""

    checksum: bytes
    checksum_body: bytes
    size: int
    view: int
    release: int
    command: int
    replica: int
    reserved_clear: bool  # all bytes that must be zero are zero


class Request(NamedTuple):
    """A well-formed request header."""

    frame: Frame
    parent: bytes
    client: bytes
    session: int
    timestamp: int
    number: int
    operation: int


class PingClient(NamedTuple):
    """A well-formed ping_client header."""

    release: int
    client: bytes
    monotonic: int
    session: int


_COMMON = struct.Struct("<16s16s16s16s16s16sIIIIHBB12s")
_COMMON_BUILT = struct.Struct("<32x16s32x16sI4xII2xBB12x")  # the same, reserved bytes left out
_REQUEST = struct.Struct("<16s16s16sQQIB3sI52s")
_PING_CLIENT = struct.Struct("<16sQQ96s")
_REPLY = struct.Struct("<16s48x16sQQQIB19x")
_EVICTION = struct.Struct("<16s111xB")
_PONG_CLIENT = struct.Struct("<Q120x")
_ZERO_16, _ZERO_12, _ZERO_3 = bytes(16), bytes(12), bytes(3)
_ZERO_52, _ZERO_96 = bytes(52), bytes(96)
_CONTEXT = slice(160, 176)  # of a reply header

OPERATION_REGISTER, OPERATION_NOOP = 2, 6
_PROTOCOL_OPERATIONS_MAX = 127


def read_frame(header: Buffer, cluster: bytes) -> Frame:
    """Check checksum, size, cluster and command of a 256-byte header.

    Raises DamagedError with the reason when the connection has to be closed.
    """
    fields = _COMMON.unpack_from(header)
    found = fields[0]
    if checksum(memoryview(header)[16:HEADER_SIZE]) != found:
        raise DamagedError("header checksum mismatch")
    size, command = fields[6], fields[11]
    if not HEADER_SIZE <= size <= MESSAGE_SIZE_MAX:
        raise DamagedError(f"message size {size} outside {HEADER_SIZE}..{MESSAGE_SIZE_MAX}")
    if fields[5] != cluster:
        raise StrangerError(_stranger(header, command, fields[5], cluster))
    if command not in COMMANDS_KNOWN:
        raise DamagedError(f"unknown command {command}")
    clear = (
        fields[1] == fields[3] == fields[4] == _ZERO_16
        and fields[7] == fields[10] == 0
        and fields[13] == _ZERO_12
    )
    return Frame(found, fields[2], size, fields[8], fields[9], command, fields[12], clear)


def _stranger(header: Buffer, command: int, wanted: bytes, cluster: bytes) -> str:
    """Who wants another cluster: the same words whenever the same client comes."""
    start = 160 if command == Command.REQUEST else 128
    who, theirs, ours = (
        int.from_bytes(each, "little") for each in (header[start : start + 16], wanted, cluster)
    )
    return (
        f"client {who:x} asks for cluster {theirs}, this is cluster {ours}: "
        f"it waits for ever, until it is made with cluster id {ours}"
    )


def body_intact(frame: Frame, body: Buffer) -> bool:
    """Whether the body has the checksum its header announces."""
    return frame.checksum_body == (checksum(body) if len(body) else EMPTY)


def parse_request(frame: Frame, header: Buffer) -> Request | None:
    """The request in a header, or None when it breaks a rule and has to be dropped."""
    parent, pad, client, session, timestamp, number, operation, pad3, _, pad52 = (
        _REQUEST.unpack_from(header, 128)
    )
    if not (
        frame.reserved_clear
        and frame.replica == 0
        and frame.release
        and pad == _ZERO_16
        and pad3 == _ZERO_3
        and pad52 == _ZERO_52
        and client != _ZERO_16
    ):
        return None
    if operation == OPERATION_REGISTER:
        valid = (
            parent == _ZERO_16
            and session == number == 0
            and frame.size - HEADER_SIZE in (0, REGISTER_BODY_SIZE)
        )
    else:
        valid = session > 0 and number > 0
        if operation <= _PROTOCOL_OPERATIONS_MAX:
            valid = valid and operation == OPERATION_NOOP and frame.size == HEADER_SIZE
    if not valid:
        return None
    return Request(frame, parent, client, session, timestamp, number, operation)


def parse_ping_client(frame: Frame, header: Buffer) -> PingClient | None:
    """The ping in a header, or None when it breaks a rule and has to be dropped."""
    client, monotonic, session, pad = _PING_CLIENT.unpack_from(header, 128)
    if (
        not frame.reserved_clear
        or frame.replica
        or frame.view
        or not frame.release
        or frame.size != HEADER_SIZE
        or client == _ZERO_16
        or pad != _ZERO_96
    ):
        return None
    return PingClient(frame.release, client, monotonic, session)


class Author(NamedTuple):
    """Who signs the messages built here."""

    cluster: bytes
    view: int
    replica: int
    release: int


def _common(author: Author, command: Command, release: int, body: Buffer) -> bytearray:
    """A header with its common half filled in, all but the header checksum."""
    header = bytearray(HEADER_SIZE)
    body_sum = checksum(body) if len(body) else EMPTY
    size = HEADER_SIZE + len(body)
    cluster, view, replica, _ = author
    _COMMON_BUILT.pack_into(header, 0, body_sum, cluster, size, view, release, command, replica)
    return header


def _seal(header: bytearray) -> bytes:
    header[0:16] = checksum(memoryview(header)[16:])
    return bytes(header)


def build_reply(
    author: Author, request: Request, commit: int, timestamp: int, body: Buffer
) -> tuple[bytes, bytes]:
    """The reply header to `request` and its context, the next request's parent.

    The one place where reply headers are made: a client library stops its whole process on a
    wrong one. `release` is the request's, not the server's; `context` is the checksum of this
    same header while its context is still zero.
    """
    header = _common(author, Command.REPLY, request.frame.release, body)
    number, operation = request.number, request.operation
    asked = request.frame.checksum
    _REPLY.pack_into(
        header, 128, asked, request.client, commit, commit, timestamp, number, operation
    )
    context = checksum(memoryview(header)[16:])
    header[_CONTEXT] = context
    return _seal(header), context


def build_eviction(author: Author, client: bytes, reason: EvictionReason) -> bytes:
    """The message that ends a client's session."""
    header = _common(author, Command.EVICTION, author.release, b"")
    _EVICTION.pack_into(header, 128, client, reason)
    return _seal(header)


def build_pong(author: Author, ping: PingClient) -> bytes:
    """The answer to ping_client: echoes the client's clock."""
    header = _common(author, Command.PONG_CLIENT, author.release, b"")
    _PONG_CLIENT.pack_into(header, 128, ping.monotonic)
    return _seal(header)


def build_ping_client(author: Author, client: bytes, monotonic: int) -> bytes:
    """A client's question whether a replica works; `author` has the client's release."""
    header = _common(author, Command.PING_CLIENT, author.release, b"")
    _PING_CLIENT.pack_into(header, 128, client, monotonic, 0, bytes(96))
    return _seal(header)


def build_ping(author: Author) -> bytes:
    """A relay's first message on its connection to the ledger: it does not count as a client."""
    return _seal(_common(author, Command.PING, author.release, b""))
