"""How this machine reaches replicas on servers: directly, or through SSH.

A firewall lets only replicas and listed clients in. The machine from which one deploys need not be
a client: its SSH connections are enough to carry a status, a verification, or a load.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

from cluster.config import Replica
from cluster.config.deployment import Deployment
from cluster.config.servers import Host, Server
from cluster.refusal import last_line
from cluster.runtimes import ssh
from cluster.tigerbeetle.waiting import Expired, wait_until

OPEN_TIMEOUT_S = 15.0
_CLOSE_TIMEOUT_S = 5

_opened: dict[tuple[Host, str], tuple[subprocess.Popen[bytes], int]] = {}


def reached(deployment: Deployment) -> Deployment:
    """The deployment with ``clients`` that work from here, until this program ends.

    The same one where replicas are on this machine, or it is a listed client. A server that cannot
    be reached gets a port where nobody listens: the others go on. Safe to repeat.
    """
    if deployment.tunnelled or not deployment.servers or not is_needed(deployment):
        return deployment

    def end(server: Server, replica: Replica) -> Replica:
        here = {"ip": IPv4Address("127.0.0.1"), "port": _port_to(server, replica)}
        return replica.model_copy(update=here)

    with ThreadPoolExecutor(len(deployment.servers)) as together:
        replicas = tuple(together.map(end, deployment.servers, deployment.cluster.replicas))
    return deployment.model_copy(update={"tunnelled": replicas})


def is_needed(deployment: Deployment) -> bool:
    """What ``reach`` says; "auto": unless an address of this machine is a client's."""
    settings = deployment.settings
    if settings is None or settings.reach == "direct":
        return False
    if settings.reach == "tunnel":
        return True
    return not is_client(_own_addresses(deployment), settings.clients)


def is_client(own: Iterable[IPv4Address], clients: Iterable[IPv4Network]) -> bool:
    """True when one of these addresses is inside one of these networks."""
    networks = list(clients)
    return any(address in network for address in own for network in networks)


def _own_addresses(deployment: Deployment) -> set[IPv4Address]:
    """The addresses with which this machine would talk to the replicas. Sends nothing."""
    found = set()
    for replica in deployment.cluster.replicas:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((str(replica.ip), replica.port))
            except OSError:
                continue  # no route: SSH may know a way
            found.add(IPv4Address(probe.getsockname()[0]))
    return found


def _port_to(server: Server, replica: Replica) -> int:
    """A port of 127.0.0.1 that leads to the replica, or nowhere when its server is out."""
    try:
        return port_to(server, replica.address)
    except ssh.SshError:
        return _free_port()


def port_to(host: Host, address: str) -> int:
    """A port of 127.0.0.1 that leads to ``address`` as the host sees it. Raises SshError."""
    opened = _opened.get((host, address))
    if opened is None or opened[0].poll() is not None:
        opened = _opened[(host, address)] = _open(host, address)
    return opened[1]


def _open(server: Host, address: str) -> tuple[subprocess.Popen[bytes], int]:
    """The tunnel, and its port. Raises SshError."""
    port = _free_port()
    forward = f"127.0.0.1:{port}:{address}"
    # `cat` ends with our end of its input: a tunnel never outlives the program that opened it.
    # A connection of its own: through a shared one, the port would stay open until that one ends.
    options = ("-oControlPath=none", "-oExitOnForwardFailure=yes", "-L", forward)
    try:
        process = subprocess.Popen(
            [*ssh.command(server, *options), "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ssh.SshError(ssh.NO_SSH) from None
    atexit.register(_close, process)

    def is_open() -> tuple[bool, str]:
        if process.poll() is not None:
            said = process.communicate()[1].decode(errors="replace")
            raise ssh.SshError(f"{server.hostname}: expected a tunnel, found: {last_line(said)}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0, "no port yet"

    try:
        wait_until(is_open, what=f"a tunnel to {server.hostname}", timeout_s=OPEN_TIMEOUT_S)
    except Expired as expired:
        _close(process)
        raise ssh.SshError(str(expired)) from None
    return process, port


def _close(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_CLOSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
