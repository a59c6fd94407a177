"""Which replicas can be adopted: those that are what they shall be, whoever has started them.

Nothing has been changed when this judges. A refusal says which server is meant, what was expected
of it and found, and what to do. Pure, but for ``identify``, see ``cluster.checks.facts``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from cluster.checks.facts import DataFile, Facts
from cluster.checks.foreign import File, Found, Note, Process
from cluster.config import PREFIX
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import layout, of
from cluster.tigerbeetle.data_file import Identity, refuse_others

#: ``ours``: runs as a deploy runs it. ``foreign``: somebody else's server runs. ``stopped``: an
#: adoption was cut off, its file is in the old place; ``moved``: in the new one, and nothing runs.
State = Literal["ours", "foreign", "stopped", "moved", "missing"]

#: What a server may be given that ours is not: it changes how fast it is, and what it tells.
_HARMLESS = re.compile(r"--(addresses|cache-.*|experimental|statsd|trace|log-(debug|trace))")
#: Whoever is logged in, and daemons that only start something: they do not start it again.
_SHELL = re.compile(r"-?(.*/)?(ba|da|z|k|fi)?sh")
_BY_A_PERSON = re.compile(r"-[il]+|--login")  # a shell's options, when it runs no script
_NO_STARTER = re.compile(r"(.*/)?(systemd|init|tini|tmux|SCREEN|screen|sshd|su|sudo)")
#: Units in which people are logged in, or clocks start things.
_OF_PEOPLE = re.compile(r"(sshd?|sshd?@.*|cron|crond|atd|rescue|getty@.*|user@.*)\.service")


@dataclass(frozen=True)
class Standing:
    """How far replica ``index`` is from being one of ours."""

    index: int
    state: State
    process: Process | None = None
    file: File | None = None  # where it is served from, or was
    note: Note | None = None
    identity: Identity | None = None  # of the file, by the server program's own reading

    @property
    def is_to_do(self) -> bool:
        """Something is to be done, and can be."""
        return self.state in ("foreign", "stopped", "moved")


def stands(deployment: Deployment, index: int, seen: Facts, found: Found) -> Standing:
    """How it is now, whether it can be adopted or not."""
    own = layout.data_path(deployment, index)
    if seen.running.get(deployment.runtime) and seen.settings:
        return Standing(index, "ours")
    if process := serving(found, own):
        return Standing(index, "foreign", process, process.file)
    if any(each.name == of(deployment).data_file_name(index) for each in seen.data_files):
        return Standing(index, "moved", note=found.note)
    if found.note and found.noted and found.noted.inode == found.note.inode:
        return Standing(index, "stopped", file=found.noted, note=found.note)
    return Standing(index, "missing")


def serving(found: Found, own: str) -> Process | None:
    """The one at the replica's port; the only one, where none listens there, as behind a proxy."""
    listening = [p for p in found.processes if p.is_listening]
    chosen = listening or [*found.processes]
    others = [p for p in chosen if not (p.file and p.file.path == own)] or chosen
    return others[0] if len(others) == 1 else None


def as_ours(
    deployment: Deployment, seen: Mapping[int, Facts], standings: Mapping[int, Standing]
) -> dict[int, Facts]:
    """The facts as the rules of a deploy judge them, once the servers are ours: pid, port, file."""
    runtime = of(deployment)

    def own(index: int, facts: Facts) -> Facts:
        standing = standings[index]
        process, file = standing.process, standing.file
        if process is not None:
            running: dict[str, int] = {deployment.runtime: process.pid}
            facts = replace(facts, running=running, arguments=" ".join(process.arguments))
        if file is not None:
            files = (file.named(runtime.data_file_name(index)),)
            facts = replace(facts, data_files=files, filesystem=file.filesystem)
        return facts

    return {index: own(index, facts) for index, facts in seen.items()}


def check(
    deployment: Deployment,
    index: int,
    seen: Facts,
    found: Found,
    identify: Callable[[DataFile], Identity],
) -> Standing:
    """How replica ``index`` stands. Raises Refusal where that is not as it shall be adopted."""
    standing = stands(deployment, index, seen, found)
    if standing.state == "ours":
        return standing
    server = _Server(deployment, index)
    server.refuse_name(seen)
    if standing.state == "missing":
        server.refuse_missing(found)
    if standing.process is not None:
        server.refuse_starter(standing.process, found)
        server.refuse_arguments(standing.process)
        if standing.file is None:
            path = standing.process.arguments[-1]
            server.refuse(
                "the data file",
                f"pid {standing.process.pid} without it: {path} is not open, or not seen from here",
                "start it on a file of this server's own",
            )
    if standing.file is not None:
        server.refuse_place(standing.file, seen, found)
        read = identify(standing.file.named(standing.file.path))
    else:
        name = of(deployment).data_file_name(index)
        refuse_others(index, name, [each.name for each in seen.data_files])
        read = identify(seen.data_files[0])
    server.refuse_identity(read)
    return replace(standing, identity=read)


def check_release(deployment: Deployment, running: Mapping[int, str]) -> None:
    """Every server's own word (index → release) is the configured one. Raises Refusal."""
    wanted = deployment.cluster.release
    for index, release in running.items():
        if release != wanted:
            _Server(deployment, index).refuse(
                f"release {wanted}, as configured",
                f"{release or 'none'} running",
                f"{PREFIX}RELEASE={release} in the env file, with that release's program here; "
                "upgrade when it is adopted"
                if release
                else f"make status {deployment.named}",
            )


@dataclass(frozen=True)
class _Server:
    """What is refused of one server, in its name."""

    deployment: Deployment
    index: int

    def refuse(self, expected: str, found: object, fix: str) -> NoReturn:
        raise Refusal(f"replica {self.index}'s server", expected=expected, found=found, fix=fix)

    def refuse_name(self, seen: Facts) -> None:
        """What is called as ours will be: it would be overwritten."""
        runtime, name = self.deployment.runtime, self.deployment.cluster.replicas[self.index].name
        if seen.running.get(runtime) and not seen.settings:
            self.refuse(
                f"the name {name} to be free for ours",
                f"{'a unit' if runtime == 'systemd' else 'a container'} that is called so, running",
                f"choose another {PREFIX}{self.index}_CONTAINER_NAME in the env file",
            )

    def refuse_missing(self, found: Found) -> NoReturn:
        replica = self.deployment.cluster.replicas[self.index]
        several = ", ".join(f"pid {p.pid} with {p.arguments[-1]}" for p in found.processes)
        self.refuse(
            f"one TigerBeetle server, at {replica.address}",
            several or "none",
            "stop those that are none of this cluster"
            if several
            else "start it as it was started before; where there never was one: make up "
            f"{self.deployment.named}",
        )

    def refuse_starter(self, process: Process, found: Found) -> None:
        """Whoever would start it again once it is stopped, but a unit or container of its own."""
        expected = "a server that nothing starts again behind our back"
        if process.container is not None:
            if not process.container:
                found_, fix = "a container that Docker does not know", "stop it with its own engine"
                self.refuse(
                    expected, f"pid {process.pid} in {found_}", f"{fix}, and start it by hand"
                )
            if process.container[-1] == "true":
                self.refuse(
                    "a container that stays when it is stopped",
                    f"{process.container[0]}, started with --rm: its volumes would go with it",
                    f"stop it, and start it without --rm: docker stop {process.container[0]}",
                )
        elif process.starter == "hand":
            self._refuse_supervisor(process)
        own = process.group if process.starter == "unit" else ""
        for name, state in found.starters:
            if name != own and state.startswith(("enabled", "cron")):
                how = "take its line out" if state == "cron" else f"systemctl disable {name}"
                self.refuse(expected, f"{name}, which would", how)

    def _refuse_supervisor(self, process: Process) -> None:
        group, parent = process.group, process.parent
        pid = f"pid {process.pid}"
        if group.endswith(".service") and not _OF_PEOPLE.fullmatch(group):
            self.refuse(
                "a server that is its unit's main process, or started by hand",
                f"{pid} in {group}, which may start it again",
                f"systemctl disable --now {group}, and start it by hand",
            )
        name = parent[0].split(" ")[0].rstrip(":") if parent else ""
        is_logged_in = bool(_SHELL.fullmatch(name)) and all(map(_BY_A_PERSON.fullmatch, parent[1:]))
        is_daemon = bool(_NO_STARTER.fullmatch(name))
        if process.parent_pid > 1 and not is_logged_in and not is_daemon:
            said = " ".join(parent)[:80]
            self.refuse(
                "a server that was started by hand, by a unit of its own, or by Docker",
                f"{pid} under pid {process.parent_pid} ({said}), which may start it again",
                f"end that first (kill {process.parent_pid}); where the server ends with it, "
                "start it by hand",
            )

    def refuse_arguments(self, process: Process) -> None:
        """It is called as ours will be, but for what changes nothing that is stored or agreed."""
        options, pid = process.options, f"pid {process.pid}"
        if "--development" in options:
            self.refuse(
                "a server for production",
                f"{pid} with --development: without direct I/O, and with smaller messages",
                "stop all replicas, start all without it, and see that they commit",
            )
        for name, value in options.items():
            if not _HARMLESS.fullmatch(name):
                self.refuse(
                    "a server with the limits that ours will have",
                    f"{pid} with {name}{'=' if value else ''}{value}",
                    "stop all replicas, start all without it, and see that they commit",
                )
        wanted = [replica.address for replica in self.deployment.cluster.replicas]
        port = wanted[self.index].rpartition(":")[2]
        found = [*process.addresses]
        if len(found) == len(wanted) and found[self.index] == f"0.0.0.0:{port}":
            found[self.index] = wanted[self.index]  # at all of its own addresses
        if found != wanted:
            self.refuse(
                f"--addresses={','.join(wanted)}, as configured",
                f"{pid} with {','.join(process.addresses)}",
                f"correct {PREFIX}ADDRESSES and the replicas' IP and PORT in the env file: the "
                "order counts",
            )

    def refuse_place(self, file: File, seen: Facts, found: Found) -> None:
        """It can be renamed into its new place, and that is empty."""
        own = layout.data_path(self.deployment, self.index)
        directory = layout.directory(self.deployment, self.index)
        others = [f.name for f in seen.data_files if f"{directory}/{f.name}" != file.path]
        if others:
            self.refuse(
                f"no data file in {directory} but the one that is served",
                f"{others[0]} beside {file.path}",
                "move it away, if it is an old copy: two files of one replica must never meet",
            )
        if file.path != own and file.mount != found.mount:
            at = f"{file.mount.rstrip('/')}/tigerbeetle"
            self.refuse(
                f"{file.path} on the file system of {layout.data_dir(self.deployment)}: it is "
                "renamed, never copied",
                f"it on {file.mount}, and {layout.data_dir(self.deployment)} on {found.mount}",
                f"set data_dir in the inventory to a directory there, such as {at}",
            )

    def refuse_identity(self, found: Identity) -> None:
        cluster = self.deployment.cluster
        count = len(cluster.replicas)
        wanted = Identity(cluster.id, self.index, count, found.release)
        if found == wanted:
            return
        if found.cluster_id != cluster.id:
            fix = (
                f"{PREFIX}CLUSTER_ID={found.cluster_id} in the env file, if it is the one you mean"
            )
        elif found.replica_count != count:
            fix = f"describe {found.replica_count} replicas in the env file"
        else:
            fix = "put addresses and ssh_hosts into the order of the replicas' indexes"
        self.refuse(f"the data file of {wanted}", f"that of {found}", fix)
