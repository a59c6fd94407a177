"""Where a replica's things are on a server of its own. Pure.

/var/lib/tigerbeetle/replica-0/   0700, tigerbeetle: <cluster>_0.tigerbeetle
    bootstrapping                 while the first format is under way: no replica ever started
/usr/local/lib/tigerbeetle/<release>-<sha256>/tigerbeetle      runtime "systemd"
/etc/systemd/system/tigerbeetle-0.service
/etc/tigerbeetle/                 compose-0.yaml, seccomp.json: runtime "docker"
"""

from __future__ import annotations

from cluster.config.deployment import Deployment
from cluster.tigerbeetle import data_file

ETC = "/etc/tigerbeetle"
PROGRAMS = "/usr/local/lib/tigerbeetle"
#: The newest of them, for people and for tasks; the units name the file itself.
PROGRAM_LINK = f"{PROGRAMS}/tigerbeetle"

#: The journal that the replicas have to themselves, with a size of its own.
JOURNAL = "tigerbeetle"
JOURNAL_CONFIG = f"/etc/systemd/journald@{JOURNAL}.conf"

#: Our image runs as this; the unit does too, so that a data file can move between the two.
USER, UID = "tigerbeetle", 10001

SYSCTL_CONFIG = "/etc/sysctl.d/90-tigerbeetle.conf"


def data_dir(deployment: Deployment) -> str:
    """The directory, or mount point, that holds the replica's own."""
    return deployment.of_servers.data_dir


def directory(deployment: Deployment, index: int) -> str:
    """Replica ``index``'s own directory."""
    return f"{data_dir(deployment)}/replica-{index}"


def data_path(deployment: Deployment, index: int) -> str:
    """Replica ``index``'s data file."""
    name = data_file.file_name(deployment.cluster.id, index)
    return f"{directory(deployment, index)}/{name}"


def unit(deployment: Deployment, index: int) -> str:
    """The systemd unit; without its suffix also the container's name."""
    return f"{deployment.cluster.replicas[index].name}.service"


def program(deployment: Deployment, sha256: str) -> str:
    """The server program, in a directory per content: one that runs is never replaced under it.

    A server notices when its own file changes, and restarts by itself: all at once.
    """
    return f"{PROGRAMS}/{deployment.cluster.release}-{sha256[:12]}/tigerbeetle"


def compose_file(index: int) -> str:
    """The Compose file of the one replica on a server."""
    return f"{ETC}/compose-{index}.yaml"


def seccomp_file() -> str:
    """The container's seccomp profile."""
    return f"{ETC}/seccomp.json"
