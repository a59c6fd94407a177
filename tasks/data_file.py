"""Data files: formatted once, when the cluster has never existed; never touched again."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files, server

from cluster.config.inventory import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import control, layout, processes
from cluster.tigerbeetle import binary
from cluster.tigerbeetle.data_file import Identity, Plan, decide, parse_superblock, refuse_others
from tasks.support.here import deployment_here, guarded, is_yes
from tasks.support.observed import observed, plan_of_all, replica_index

#: `inspect` reads 96 KiB; it may hang on a damaged file, so it is never let run without a bound.
_INSPECT_TIMEOUT_S = 30


@deploy("Format the data files of a new cluster")
def format_once() -> None:
    """Format each replica's file, only if none exists: to ``.partial``, then renamed."""
    deployment = deployment_here()
    replicas = deployment.cluster.replicas
    paths = {r.index: processes.files_of(deployment, r.index) for r in replicas}
    for directory in (deployment.state_dir, *(path.directory for path in paths.values())):
        files.directory(name=f"Keep {directory.name}/ private", path=str(directory), mode="700")
    with guarded():
        if plan(deployment) == "keep":
            host.noop("data files: all there, and of this cluster")
            return
        command = binary.command(deployment)
    marker = str(processes.bootstrap_marker(deployment))
    files.file(name="Note that no replica has started yet", path=marker, mode="600")
    for index, path in paths.items():
        if not path.data.exists():
            server.shell(
                name=f"Format replica {index}'s data file",
                commands=_format_commands(deployment, command, index, path.data),
            )
    files.file(name="Note that every replica has its data file", path=marker, present=False)


@deploy("Format the data files of a new cluster")
def format_once_on_servers() -> None:
    """As ``format_once``, for one replica on each server; decided from what all of them hold."""
    deployment, index = deployment_here(), replica_index()
    seen = observed(deployment)[index]
    with guarded():
        what = plan_of_all(deployment, is_asked_for=is_yes("bootstrap"))
    marker = layout.bootstrap_marker(deployment, index)
    if what == "format":
        files.file(name="Note that no replica has started yet", path=marker, mode="600")
        if not seen.data_files:
            server.shell(
                name="Format the replica's data file",
                commands=_format_commands_on_server(deployment, index),
            )
    files.file(name="Note that every replica has its data file", path=marker, present=False)


def plan(deployment: Deployment) -> Plan:
    """What the data files allow, from what they say. Raises Refusal."""
    command = binary.command(deployment)
    for replica in deployment.cluster.replicas:
        expected = processes.files_of(deployment, replica.index).data
        refuse_others(replica.index, expected.name, _data_files(expected.parent))
    return decide(
        {
            replica.index: inspect(command, processes.files_of(deployment, replica.index).data)
            for replica in deployment.cluster.replicas
        },
        deployment.cluster,
        is_bootstrapping=processes.bootstrap_marker(deployment).exists(),
    )


def _data_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.tigerbeetle"))


def inspect(command: list[str], path: Path) -> Identity | None:
    """Whose file this is, by the server's own reading; None when there is none."""
    if not path.exists():
        return None
    try:
        done = subprocess.run(
            [*command, "inspect", "superblock", str(path)],
            capture_output=True,
            text=True,
            timeout=_INSPECT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refusal(
            f"{path}: expected its superblock within {_INSPECT_TIMEOUT_S} s, found no answer. "
            "Fix: check the disk"
        ) from None
    try:
        return parse_superblock(done.stdout or done.stderr)
    except Refusal as error:
        raise Refusal(f"{path}: {error}") from None


def _format_commands(
    deployment: Deployment, command: list[str], index: int, path: Path
) -> list[str]:
    partial = path.with_name(path.name + ".partial")
    formatting = processes.format_command(deployment, command, index, partial)
    return [
        f"rm -f {shlex.quote(str(partial))}",  # left by a format that was interrupted
        shlex.join(formatting),
        # -T, -n: a plain rename that never replaces a data file.
        f"mv -n -T {shlex.quote(str(partial))} {shlex.quote(str(path))}",
        f"test ! -e {shlex.quote(str(partial))}",
    ]


def _format_commands_on_server(deployment: Deployment, index: int) -> list[str]:
    """To ``.partial``, then renamed, as the file's owner, with the runtime's own program."""
    replica = control.of(deployment, index)
    path = shlex.quote(replica.data_file)
    formatting = replica.tigerbeetle(
        "format",
        f"--cluster={deployment.cluster.id}",
        f"--replica={index}",
        f"--replica-count={len(deployment.cluster.replicas)}",
        f"{replica.data_file}.partial",
    )
    rename = f"test ! -e {path} && mv -T {path}.partial {path} && sync {path}"
    return [
        replica.sh(f"rm -f {path}.partial"),  # left by a format that was interrupted
        formatting,
        replica.sh(rename),
    ]
