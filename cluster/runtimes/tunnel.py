"""How this machine reaches replicas on servers: directly, or through SSH.

A firewall lets only replicas and listed clients in. The machine from which one deploys need not be
a client: its SSH connections are enough to carry a status, a verification, or a load.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network

from cluster.config import Replica
from cluster.config.deployment import Deployment
from cluster.config.servers import Host, Server
from cluster.refusal import last_line
from cluster.runtimes import ssh

#: What has opened a tunnel, and its port.
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
        return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 on which nobody listens now."""
    with ExitStack() as until_all_are_known:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        return [until_all_are_known.enter_context(s).getsockname()[1] for s in sockets]


def port_to(host: Host, address: str) -> int:
    """A port of 127.0.0.1 that leads to ``address`` as the host sees it. Raises SshError."""
    keeper, port = _opened.get((host, address), (None, 0))
    if keeper is None or keeper.poll() is not None:  # a new one is where the old one was
        _opened[(host, address)] = _open(host, address, port or free_ports(1)[0])
    return _opened[(host, address)][1]


@contextmanager
def back(host: Host, there: int, here: int) -> Iterator[None]:
    """Within, port ``there`` of the host's 127.0.0.1 leads to ``here`` of ours.

    It ends with this program at the latest, however that ends. Raises SshError.
    """
    keeper, _ = _open(host, f"127.0.0.1:{here}", there, "-R")
    try:
        yield
    finally:
        if keeper.stdin:
            keeper.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(ssh.ANSWER_TIMEOUT_S)


def _open(
    server: Host, address: str, port: int, way: str = "-L"
) -> tuple[subprocess.Popen[bytes], int]:
    """A forward of the shared connection, and who keeps it. Raises SshError."""
    forward = [way, f"127.0.0.1:{port}:{address}"]
    done = subprocess.run(
        ssh.asking(server, "forward", *forward),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=ssh.ANSWER_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = last_line(done.stderr.decode(errors="replace"))
        raise ssh.SshError(
            f"{server.hostname}: expected a tunnel, found: {said}. Fix: let sshd forward "
            "(AllowTcpForwarding yes)"
        )
    # The connection outlives this program, and so would its ports. `cat` ends with our end of its
    # input, however this program ends; until then the connection is in use.
    keep = shlex.join([*ssh.shared(server), "cat"])
    cancel = shlex.join(ssh.asking(server, "cancel", *forward))
    keeper = subprocess.Popen(
        ["sh", "-c", f"{keep}; {cancel}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return keeper, port
