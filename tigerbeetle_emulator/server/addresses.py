"""Addresses as the genuine command line writes them."""

from __future__ import annotations

import socket
import sys
from typing import NamedTuple

HOST_DEFAULT, PORT_DEFAULT = "127.0.0.1", 3001
REPLICAS_MAX = 6


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

    Raises AddressError: names are not resolved, as with the genuine server.
    """
    addresses = [_parse_one(part.strip()) for part in text.split(",")]
    if len(addresses) > REPLICAS_MAX:
        raise AddressError(f"expected at most {REPLICAS_MAX} addresses, found {len(addresses)}")
    fixed = [address for address in addresses if address.port]
    if len(set(fixed)) < len(fixed):
        raise AddressError(f"{text!r} names an address twice")
    return addresses


def _parse_one(text: str) -> Address:
    if text.isdecimal():
        host, port_text = HOST_DEFAULT, text
    elif text.startswith("["):
        host, bracket, port_text = text[1:].partition("]")
        host = host if bracket else text
        port_text = port_text.removeprefix(":") or str(PORT_DEFAULT)
    else:
        host, _, port_text = text.partition(":")
        port_text = port_text or str(PORT_DEFAULT)
    if not port_text.isdecimal() or int(port_text) > 65535:
        raise AddressError(f"{text!r}: expected ip:port with a port up to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError:
        raise AddressError(f"{text!r}: expected an IP address, names are not resolved") from None
    return Address(host, int(port_text))


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
