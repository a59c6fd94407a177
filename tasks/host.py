"""A server of its own, made ready for a replica: user, directories, kernel setting."""

from __future__ import annotations

from io import StringIO

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Which
from pyinfra.operations import apt, files, server

from cluster.config.deployment import Deployment
from cluster.runtimes import layout
from tasks import exporter, firewall
from tasks.support.here import deployment_here
from tasks.support.observed import observed, replica_index

_NOBODY_LOGS_IN = "/usr/sbin/nologin"
_SYSCTL = """\
# TigerBeetle does all of its disk and network through io_uring. Written by pyinfra.
kernel.io_uring_disabled = 0
"""


@deploy("Make the server ready")
def make_ready() -> None:
    """All that a deploy brings before the program: the server may be a new, bare one."""
    prepare()
    firewall.apply()
    exporter.run()


@deploy("Prepare the server")
def prepare() -> None:
    """User, directories, kernel setting."""
    deployment = deployment_here()
    _have_user(deployment)
    files.directory(name="Have the data directory", path=layout.data_dir(deployment), mode="755")
    files.directory(
        name="Keep the replica's directory private",
        path=layout.directory(deployment, replica_index()),
        user=layout.USER,
        group=layout.USER,
        mode="700",
    )
    files.directory(name="Have the configuration directory", path=layout.ETC, mode="755")
    if deployment.repository and not host.get_fact(Which, command="restic"):
        apt.packages(name="Install restic, for backups", packages=["restic"], update=True)
    # The check has seen that it is 0 now; this keeps it so.
    files.put(
        name="Keep io_uring enabled",
        src=StringIO(_SYSCTL),
        dest=layout.SYSCTL_CONFIG,
        mode="644",
        create_remote_dir=False,
    )


def _have_user(deployment: Deployment) -> None:
    """Where it is seen to be there, nothing is asked again: pyinfra would read every account."""
    seen, home = observed(deployment)[replica_index()], layout.data_dir(deployment)
    wanted = f"{layout.UID}:{layout.UID}:{home}:{_NOBODY_LOGS_IN}"
    if (seen.account, seen.group) == (wanted, str(layout.UID)):
        host.noop(f"user and group {layout.USER}: there already")
        return
    server.group(name=f"Have the group {layout.USER}", group=layout.USER, gid=layout.UID)
    server.user(
        name=f"Have the user {layout.USER}",
        user=layout.USER,
        uid=layout.UID,
        group=layout.USER,
        home=home,
        shell=_NOBODY_LOGS_IN,
        create_home=False,
    )
