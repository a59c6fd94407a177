"""Addresses as the genuine command line writes them."""

from __future__ import annotations

import re
import socket
import sys
from typing import NamedTuple

HOST_DEFAULT, PORT_DEFAULT = "127.0.0.1", 3001
REPLICAS_MAX = 6
MEMBERS_MAX = 12  # replicas and standbys
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")


class AddressError(ValueError):
    """An address list that cannot be used; the message says why."""


class Address(NamedTuple):
    """An IP address and a port; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str) -> list[Address]:
    """A comma-separated list of `ip:port`, `[ipv6]:port`, `ip` or `port`.

    Raises AddressError, in the genuine server's words: names are not resolved, as with it.
    """
    parts = text.split(",")
    if not text:
        raise AddressError("expected an address, found none")
    if len(parts) > MEMBERS_MAX:
        raise AddressError(f"too many addresses, at most {MEMBERS_MAX} are allowed: '{text}'")
    try:
        return [parse_one(part, PORT_DEFAULT) for part in parts]
    except AddressError as error:
        words, _, hint = str(error).partition(";")
        raise AddressError(f"{words}: '{text}'{hint and ';'}{hint}") from None


def parse_one(text: str, port_default: int) -> Address:
    """One address. Raises AddressError."""
    if not text:
        raise AddressError("invalid trailing comma")
    split = max(map(text.rfind, ":.]"))
    if split < 0:
        return Address(HOST_DEFAULT, _port(text))
    if text[split] != ":":
        return Address(_host(text), port_default)
    port = _port(text[split + 1 :])
    return Address(_host(text[:split]), port)


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        raise AddressError("invalid port; expected ip:port, with a port from 0 to 65535")
    return int(text)


def _host(text: str) -> str:
    """An IP address, in the form that the system reads."""
    if text.endswith(":"):
        raise AddressError("invalid address with more than one colon; expected [ipv6]:port")
    is_bracketed = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if is_bracketed else text
    family = socket.AF_INET if "." in host else socket.AF_INET6
    if family == socket.AF_INET6:
        host = re.sub(r"\b0+(?=[0-9a-fA-F])", "", host)
    try:
        if is_bracketed != (":" in text):
            raise OSError
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        raise AddressError(
            "invalid IPv4 or IPv6 address; expected an IP address, names are not resolved"
        ) from None
    return host


def listen(address: Address) -> socket.socket:
    """A non-blocking listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # where it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(tuple(address))
        listener.listen(64)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
