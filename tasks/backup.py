"""Backups: every data file of one moment packed; and put back, all or none.

The phases of `make backup` and `make restore`, which decide what comes next
(`cluster.operate.backup`). ``backup_set`` in the host data is the set's directory on this machine.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError

from cluster.config.deployment import Deployment
from cluster.health import health, planned_stop
from cluster.operate.backup import packing, repository, restic, sets
from cluster.runtimes import of
from tasks import exporter, firewall, preflight, program
from tasks import host as machine
from tasks.support import stored
from tasks.support.act import call, call_once, is_sudo, run_now, shell, tell
from tasks.support.here import deployment_here, guarded, indexes_here, is_server

#: How the names of files begin with which a backup is tried.
_TRIED = "tried-"
_OTHER_DISK = ", or set BACKUP_DIR to a larger disk"


@deploy("Back up the replicas")
def take() -> None:
    """Stop all, pack each data file, start all: the time between is the backup's downtime."""
    deployment = deployment_here()
    _try(deployment)
    _call("Note when they stop", _note_stop)
    _stop(deployment)
    _pack(deployment)
    _start(deployment)
    _call("Wait until the cluster commits", _await_commit)
    _deliver(deployment)


@deploy("Try what a backup needs")
def try_out() -> None:
    """Before anything is frozen."""
    _try(deployment_here(), is_packed=not stored.repository_id())


@deploy("Keep the clones of the data files")
def keep_clones() -> None:
    """While the replicas run."""
    deployment = deployment_here()
    runtime, name = of(deployment), _set_directory().stem

    def pack_one(index: int, target: Path) -> str:
        clone = packing.clone_of(runtime, index, name)
        if stored.repository_id():  # which takes the clone as it is
            return packing.note(runtime, index, clone, target)
        return packing.pack_clone(runtime, index, clone, target)

    def copy(index: int) -> str:
        return packing.copy_clone(runtime, index, packing.clone_of(runtime, index, name))

    _pack(deployment, pack_one)
    _deliver(deployment, copy)


@deploy("Pack a stopped cluster's data files")
def pack() -> None:
    """The same for a cluster that is down, and stays down."""
    deployment = deployment_here()
    _try(deployment)
    _pack(deployment)
    _deliver(deployment)


@deploy("Start the replicas again")
def start_again() -> None:
    """After a backup that has failed, however far it came.

    A stop that was interrupted may still be under way: what is started before its end goes down.
    """
    deployment = deployment_here()
    _stop(deployment)
    _start(deployment)
    _call("Wait until the cluster commits", _await_commit)
    _remove_packed(deployment)
    stored.unlock()


@deploy("Remove what was tried")
def forget() -> None:
    """After a backup that has failed before it stopped anything."""
    _remove_packed(deployment_here())
    stored.unlock()


@deploy("Make the machines ready")
def make_ready() -> None:
    """Check and bring all that a deploy does, before any data file is touched.

    Servers may be new, bare ones: nothing else could be done there.
    """
    preflight.check_machines()
    if is_server():
        firewall.check()
        exporter.check()
        machine.make_ready()
    program.bring()


@deploy("Unpack a backup")
def unpack() -> None:
    """Beside the data files, which stay as they are."""
    deployment = deployment_here()
    manifest = sets.read(_set_directory())
    files = {file.replica: file for file in manifest.files}
    runtime, directory, indexes = of(deployment), _on_host(deployment), indexes_here()
    is_sent = _is_elsewhere(deployment) and not manifest.is_stored
    needed = sum(files[i].data_size + is_sent * files[i].size for i in indexes)
    for index in indexes:
        _shell(f"Make the place of replica {index}'s data file", runtime.prepare(index))
        room = packing.require_room_beside(runtime, index, needed)
        _shell("Check the room for what is unpacked", room)
    _on_each("Look for an earlier restore of replica {}", packing.REFUSE_LEFTOVER)
    _on_each("Accept what was restored to replica {}'s new disk", packing.ACCEPT)
    _on_each("Drop what is left of an earlier restore of replica {}", packing.DROP)
    for index in indexes if is_sent else ():
        call("Send the packed file", _send, name_=files[index].name)
    unpacked = packing.together(
        [
            packing.unpack(
                runtime, index, packing.copy(directory, files[index]), files[index].data_size
            )
            for index in indexes
        ]
    )
    if manifest.is_stored:
        stored.reach()
        call("Bring the data files from it", stored.run, script=unpacked)
    else:
        _shell("Unpack the data files", unpacked)
        _remove_packed(deployment)


@deploy("Remove what was unpacked")
def discard() -> None:
    """The data files were not touched, and are not."""
    deployment = deployment_here()
    _on_each("Remove what was unpacked for replica {}", packing.DISCARD)
    _remove_packed(deployment)


@deploy("Replace the data files")
def swap() -> None:
    """Rename all; the old ones are kept."""
    _on_each("Replace replica {}'s data file", packing.SWAP)


@deploy("Put the old data files back")
def undo() -> None:
    """As it was before the restore."""
    _on_each("Put replica {}'s data file back", packing.UNDO)


@deploy("Drop the replaced data files")
def accept() -> None:
    """The cluster commits with the restored ones."""
    _on_each("Accept replica {}'s restored data file", packing.ACCEPT)
    _on_each("Drop replica {}'s replaced data file", packing.DROP)


def _try(deployment: Deployment, *, is_packed: bool = True) -> None:
    """All that a backup needs, before anything is stopped: room, rights, programs, the way here."""
    runtime, directory, indexes = of(deployment), _on_host(deployment), indexes_here()
    _remove_packed(deployment)  # what a backup that was killed has left
    fix = "free some" + ("" if _is_elsewhere(deployment) else _OTHER_DISK)
    room = packing.require_room(runtime, indexes if is_packed else (), directory, fix)
    _shell("Check the room for the packed files", room)
    with guarded():
        tried = [packing.try_out(runtime, i, directory / f"{_TRIED}{i}") for i in indexes]
    _shell("Try to pack the data files", packing.together(tried))
    if _is_elsewhere(deployment):
        call("Try to bring a packed file", _fetch, there=directory)
    if stored.repository_id():
        stored.reach()
        _call("Check the room in the repository", _require_room_there)
    elif _is_elsewhere(deployment):
        _call("Check the room for the packed files here", _require_room_here)
    _shell("Remove what was tried", f"rm -f {shlex.quote(str(directory))}/{_TRIED}*")


def _require_room_here(deployment: Deployment, directory: Path) -> None:
    """For all whole files together, or twice what the newest backup takes; no trial stays."""
    whole, root = _whole(directory), directory.parent
    whole_sets = sets.of_cluster(sets.complete(root), deployment).values()
    needed = min([whole, *(2 * newest.size for newest in [*whole_sets][-1:])])
    if (free := shutil.disk_usage(directory).free) < needed:
        raise DeployError(
            f"backup: expected {needed >> 20} MiB free in {root}, found {free >> 20} MiB. "
            f"Fix: free some{_OTHER_DISK}"
        )


def _require_room_there(deployment: Deployment, directory: Path) -> None:
    repository.require_room(deployment, _whole(directory))


def _whole(directory: Path) -> int:
    """Bytes of all data files together, by their trials, which are removed."""
    tried = list(directory.glob(f"{_TRIED}*"))
    size = sum(int(path.read_text()) for path in tried if path.suffix == ".size")
    for path in tried:
        path.unlink()
    return size


def _remove_packed(deployment: Deployment) -> None:
    if _is_elsewhere(deployment):
        there = shlex.quote(str(_on_host(deployment)))
        _shell("Remove what was packed", f"test ! -d {there} || rm -rf {there}")


def _pack(deployment: Deployment, pack_one: Callable[[int, Path], str] | None = None) -> None:
    directory = _on_host(deployment)
    pack_one = pack_one or partial(packing.pack, of(deployment))
    with guarded():
        each = [pack_one(i, directory / f"replica-{i}") for i in indexes_here()]
    _shell("Pack the data files", packing.together(each))


def _on_each(doing: str, script: str) -> None:
    runtime = of(deployment_here())
    for index in indexes_here():
        _shell(doing.format(index), packing.on_files(script, runtime, index))


def _stop(deployment: Deployment) -> None:
    stop = map(of(deployment).stop, indexes_here())
    _shell("Stop the replicas", packing.together(list(stop)))


def _start(deployment: Deployment) -> None:
    start = map(of(deployment).start, indexes_here())
    _shell("Start the replicas", packing.together(list(start)))


def _is_elsewhere(deployment: Deployment) -> bool:
    """On servers: what is packed travels between there and here."""
    return _on_host(deployment) != _set_directory()


def _on_host(deployment: Deployment) -> Path:
    """Where this host packs into, or unpacks from: on this machine, the set itself."""
    return of(deployment).backup_directory(_set_directory())


def _deliver(deployment: Deployment, copy: Callable[[int], str] | None = None) -> None:
    """To where backups are kept; ``copy`` prints a data file, where it was not packed.

    In turn: what one replica has stored, the next need not send.
    """
    if stored.repository_id():
        call("Store the data files in the repository", _store, copy=copy, _serial=True)
    _bring(deployment)


def _store(copy: Callable[[int], str] | None) -> None:
    """From the host itself to the repository; what each has added is noted here."""
    deployment, directory = deployment_here(), _on_host(deployment_here())
    name = _set_directory().stem
    for index in indexes_here():
        packed = directory / f"replica-{index}"
        printed = copy(index) if copy else packing.copy_packed(packed)
        script = restic.store(printed, deployment, name, index, f"{packed}.status")
        added = restic.added(stored.run(script))
        (_set_directory() / f"replica-{index}.{restic.ADDED}").write_text(str(added))


def _bring(deployment: Deployment) -> None:
    """From a server to this machine, once the cluster runs again."""
    if _is_elsewhere(deployment):
        directory = _on_host(deployment)
        call("Bring the packed file", _fetch, there=directory)
        _remove_packed(deployment)


def _fetch(there: Path) -> None:
    done, output = run_now(f"ls {shlex.quote(str(there))}")
    if not done:
        raise _refused(there, f"expected to read it, found: {output.output}")
    for name in output.stdout.split():
        here = _set_directory() / name
        if not host.get_file(str(there / name), str(here), _sudo=is_sudo()):
            raise _refused(there / name, "expected to bring it here, found it refused")
        here.chmod(0o600)


def _send(name_: str) -> None:
    there = _on_host(deployment_here())
    run_now(f"mkdir -p -m 700 {shlex.quote(str(there))}")
    if not host.put_file(str(_set_directory() / name_), str(there / name_), _sudo=is_sudo()):
        raise _refused(there / name_, "expected to send it there, found it refused")


def _refused(path: Path, why: str) -> DeployError:
    return DeployError(f"{path}: {why}. Fix: look at that server's disk and rights, then repeat")


def _set_directory() -> Path:
    return Path(host.data.backup_set)


def _note_stop(deployment: Deployment, directory: Path) -> None:
    (directory / sets.STOPPED).write_text(str(time.time()))
    planned_stop.announce_of(deployment, is_planned=True)


def _await_commit(deployment: Deployment, directory: Path) -> None:
    with guarded():
        health.wait(deployment, on_progress=tell)
    (directory / sets.COMMITTED).write_text(str(time.time()))
    planned_stop.announce_of(deployment, is_planned=False)


def _call(name: str, function: Callable[[Deployment, Path], None]) -> None:
    call_once(name, function, deployment=deployment_here(), directory=_set_directory())


def _shell(name: str, command: str) -> None:
    shell(name, command, _timeout=stored.LONG_S)
