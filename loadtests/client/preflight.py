"""Find out within seconds why a cluster does not answer: the native client itself only waits.

TigerBeetle's client never gives up and never says why: a wrong address, a wrong cluster id, a
cluster without quorum and a 33rd client all look the same to it.
"""

from __future__ import annotations

import socket
from importlib.metadata import version

from cluster.refusal import Refusal
from loadtests.client.bridge import CONNECTIONS_MAX, SESSIONS_MAX

PROBE_TIMEOUT_S = 1.0


def diagnose(cluster_id: int, addresses: str, waited_s: float, log: list[str], named: str) -> str:
    """One message: what was asked, what each address did, what that means, how to go on.

    ``named`` is the cluster's ``INVENTORY=``, or empty.
    """
    states = {address: probe(address) for address in addresses.split(",")}
    seen = ", ".join(f"{address} {state}" for address, state in states.items())
    if "closes" in " ".join(states.values()):
        advice = (
            f"a replica that accepts and closes has its {CONNECTIONS_MAX} client connections "
            "taken: run fewer worker processes (each takes 2)"
        )
    elif any(state == "listens" for state in states.values()):
        advice = (
            f"is the cluster id {cluster_id} right, and is a majority of the replicas up? "
            "A replica closes the connection of a client with another cluster id in silence"
        )
    else:
        advice = "is the cluster up, and are these its addresses?"
        advice += f" `make up {named}` starts it" if named else ""
    last = f" The client's last words: {log[-1].strip()!r}." if log else ""
    return f"cluster {cluster_id}: no reply within {waited_s:g} s ({seen}). Fix: {advice}.{last}"


def probe(address: str) -> str:
    """What happens to a TCP connection to IP:PORT: 'listens', 'closes at once', or the error."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S) as connection:
            connection.settimeout(PROBE_TIMEOUT_S / 2)
            try:
                return "closes at once" if connection.recv(1) == b"" else "speaks first"
            except TimeoutError:
                return "listens"
    except TimeoutError:
        return "does not accept"
    except (OSError, ValueError) as error:
        return "refuses" if isinstance(error, ConnectionRefusedError) else f"fails ({error})"


def check_release(server_release: str) -> None:
    """Raise Refusal if this machine's client is newer than the cluster: it would be evicted."""
    client_release = version("tigerbeetle")
    if _numbers(client_release) > _numbers(server_release):
        raise Refusal(
            f"client release: expected at most the cluster's {server_release}, found "
            f"{client_release}. Fix: upgrade the replicas first, or install "
            f"tigerbeetle=={server_release}"
        )


def check_sessions(workers: int, *, clients_per_worker: int, reserve: int = 1) -> None:
    """Raise Refusal if the cluster cannot serve so many workers at once."""
    clients = workers * clients_per_worker
    room = CONNECTIONS_MAX - reserve
    if clients > room:
        raise Refusal(
            f"worker processes: expected at most {room // clients_per_worker} (each has "
            f"{clients_per_worker} clients; a cluster serves {CONNECTIONS_MAX} connections and "
            f"keeps {SESSIONS_MAX} sessions), found {workers}. Fix: lower --processes or "
            "--expect-workers; one process carries 25,000 actions/s"
        )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
