"""The repository of a deployment's backups, asked from this machine.

A set is one snapshot for each replica, stored from where its data file is, and a last one, the
manifest, stored from here: with it the set is whole. This machine keeps the manifest, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from cluster.command import by_inventory
from cluster.config import env_file, inventory, kept
from cluster.config.deployment import Deployment
from cluster.config.repository import TO, Repository
from cluster.interruption import say, whole
from cluster.operate import phase
from cluster.operate.backup import restic, sets
from cluster.operate.backup.restic import Snapshot
from cluster.operate.backup.sets import Damaged, Manifest, StoredFile
from cluster.refusal import Refusal, understood

#: For a manifest: the repository's index is read for it.
_READ_S = 600.0
#: After this nobody still works on a set that has no manifest.
_LEFT_BEHIND = timedelta(seconds=phase.TIMEOUT_S)
_SFTP = re.compile(
    r"sftp:(//)?(?P<to>[^/:]*@)?(?P<host>\[[^]]*\]|[^/:]+)(:(?P<port>\d+)(?=/))?[:/](?P<path>.*)"
)
_DF_TIMEOUT_S = _END_S = 30


def check(deployment: Deployment) -> str:
    """Reach, open and lock it, as a backup does: its id. Raises Refusal."""
    said = run(deployment, "cat", "config", timeout_s=restic.ANSWER_S)
    with understood("restic", expected="the repository's id", fix="look at `restic cat config`"):
        return str(json.loads(said)["id"])


def init(deployment: Deployment) -> None:
    """Make a new one. Raises Refusal where one is."""
    run(deployment, "init")


def require_room(deployment: Deployment, whole: int) -> None:
    """Raises Refusal where ``whole`` bytes, of all data files, have no room, as far as is known.

    Twice what was new in this cluster's largest backup is enough, if this machine knows one.
    """
    known = sets.of_cluster(sets.complete(sets.directory(deployment.name)), deployment).values()
    largest = max((each.size for each in known if each.is_stored), default=whole)
    needed, repository = min(whole, 2 * largest), _of(deployment)
    free = _free(repository)
    if free is not None and free < needed:
        raise Refusal(
            repository.url,
            expected=f"{needed >> 20} MiB free for the backup",
            found=f"{free >> 20} MiB",
            fix="make room there, or let older backups go: a lower KEEP",
        )


def snapshots(deployment: Deployment) -> list[Snapshot]:
    """This cluster's, oldest first. Raises Refusal."""
    tags = ",".join(restic.tags_of(deployment))
    asked = ("snapshots", "--json", f"--tag={tags}")
    return restic.parse(run(deployment, *asked, timeout_s=restic.ANSWER_S))


def names(deployment: Deployment) -> list[str]:
    """The names of this cluster's whole sets, oldest first. Raises Refusal."""
    return restic.whole(snapshots(deployment))


def stored(deployment: Deployment, name: str) -> dict[int, str]:
    """Replica → id of what its host has just stored for the set. Raises Refusal."""
    return {
        each.replica: each.id
        for each in snapshots(deployment)
        if each.set_name == name and each.replica is not None
    }


def put(deployment: Deployment, manifest: Manifest) -> None:
    """Store the manifest: from here on the set is whole. Raises Refusal."""
    run(deployment, *restic.put(deployment, manifest.name), stdin=manifest.model_dump_json())


def forget(deployment: Deployment, name: str) -> None:
    """Let go what was stored for a set that has failed, and the locks of who was ended for it.

    Raises Refusal.
    """
    run(deployment, "unlock", timeout_s=restic.ANSWER_S)  # of processes that are gone
    if ids := [each.id for each in snapshots(deployment) if each.set_name == name]:
        run(deployment, "forget", *ids, timeout_s=restic.ANSWER_S)


def drop(deployment: Deployment, let_go: Collection[str]) -> None:
    """Let these sets go, and what killed backups have left; prune, and check what stays.

    A set's manifest goes first: if this is interrupted, the rest counts as no backup. Raises
    Refusal; where somebody holds the repository, nothing was dropped.
    """
    found = snapshots(deployment)
    whole = set(restic.whole(found))
    before = f"{datetime.now(UTC) - _LEFT_BEHIND:%Y%m%dT%H%M%SZ}"
    left = {s.set_name for s in found if s.set_name not in whole and s.set_name < before}
    gone = [each for each in found if each.set_name in left.union(let_go)]
    if gone:
        gone.sort(key=lambda each: each.replica is not None)
        run(deployment, "forget", *(each.id for each in gone))
        run(deployment, "prune", timeout_s=phase.TIMEOUT_S)
        run(deployment, "check", timeout_s=phase.TIMEOUT_S)
    for name in let_go:
        record = sets.directory(deployment.name) / name
        if record.is_dir() and sets.read(record).is_stored:
            sets.remove(record)


def bring(deployment: Deployment, name: str) -> Path:
    """Bring a set's manifest to this machine; its directory. Raises Refusal."""
    (manifest,) = (s for s in snapshots(deployment) if (s.set_name, s.replica) == (name, None))
    text = run(deployment, "--no-cache", *restic.dump(manifest.id))
    directory = sets.directory(deployment.name) / name
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept.write(directory / sets.MANIFEST, text.encode())
    return directory


def chosen(source: str | None, deployment: Deployment) -> Path:
    """The set that is named, by path or by its name, wherever it is; else the newest of all.

    Raises Refusal.
    """
    is_here = source and (not sets.NAME.fullmatch(source) or _is_known(deployment, source))
    if deployment.repository is None or is_here:
        return sets.chosen(source, deployment)
    there = names(deployment)
    if source and source not in there:
        raise Refusal(
            "FROM",
            expected=f"a backup of {deployment.whose}, here or in {deployment.repository.url}",
            found=f"none that is called {source}",
            fix=f"choose one: make backups {deployment.named}",
        )
    here = sets.of_cluster(sets.complete(sets.directory(deployment.name)), deployment)
    packed = [path.name for path, manifest in here.items() if not manifest.is_stored]
    newest = source or max([*there, *packed], default=None)
    if newest is None or _is_known(deployment, newest):
        return sets.chosen(newest, deployment)
    return bring(deployment, newest)


def check_set(deployment: Deployment, manifest: Manifest) -> str:
    """See that a stored set's snapshots are there; the repository's id. Raises Refusal."""
    wanted = {f.replica: f.snapshot for f in manifest.files if isinstance(f, StoredFile)}
    if deployment.repository is None:
        raise Refusal(
            TO,
            expected=f"the repository with backup {manifest.name}",
            found="nothing",
            fix=f"set it in {deployment.env_file}, or in the environment",
        )
    repository_id = check(deployment)
    lost = {*wanted.values()} - {each.id for each in snapshots(deployment)}
    if lost:
        raise Damaged(
            f"FROM: expected backup {manifest.name} in {deployment.repository.url}, found "
            f"{len(lost)} of its {len(wanted)} files gone, or damaged in its list. Fix: choose "
            f"another: make backups "
            f"{deployment.named}"
        )
    return repository_id


def run(
    deployment: Deployment, *arguments: str, stdin: str = "", timeout_s: float = _READ_S
) -> str:
    """Run restic here; what it prints. Raises Refusal with why it has failed, in one line."""
    try:
        with subprocess.Popen(
            ["restic", *arguments],
            env=environ(deployment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # without a terminal nobody asks for a password
        ) as process:
            said = ""
            try:
                output, said = process.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    _, said = process.communicate(timeout=_END_S)
                raise refused(deployment, said, restic.TIMED_OUT) from None
            finally:
                _end(process)
    except FileNotFoundError:
        raise refused(deployment, "", 127) from None
    if process.returncode:
        raise refused(deployment, said, process.returncode)
    if restic.DAMAGED.search(said):
        say(
            f"damaged, and left out: {restic.reason(said)}. See docs/backup.md#a-damaged-repository"
        )
    return output


def _end(process: subprocess.Popen[str]) -> None:
    """End it, if it has not: by SIGINT it takes its lock away, and 0.14 by no other."""
    with whole("letting go of the repository"):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        phase.end(process)


def environ(deployment: Deployment) -> dict[str, str]:
    """The environment in which restic opens it, here. Raises Refusal."""
    others = {k: v for k, v in os.environ.items() if not k.startswith("RESTIC_")}
    return others | _of(deployment).environ()


def settings(deployment: Deployment) -> list[str]:
    """What a host reads from its standard input, to open it there. Raises Refusal."""
    return restic.settings(_of(deployment).environ())


def refused(deployment: Deployment, said: str, code: int = 1) -> Refusal:
    """What restic has failed with, here or on a server, in one line."""
    return restic.refused(_of(deployment).url, said, code, deployment.named)


def _of(deployment: Deployment) -> Repository:
    if deployment.repository is None:
        file = deployment.env_file
        raise Refusal(
            TO,
            expected="a repository",
            found="nothing",
            fix=f"set it in {file}; see docs/backup.md",
        )
    return deployment.repository


def _is_known(deployment: Deployment, name: str) -> bool:
    return (sets.directory(deployment.name) / name / sets.MANIFEST).is_file()


def _free(repository: Repository) -> int | None:
    """Bytes; None where nobody knows: S3, and servers that do not tell."""
    if repository.kind == "directory":
        return shutil.disk_usage(repository.url).free
    place = _SFTP.fullmatch(repository.url)
    if not place:
        return None
    port = ["-P", place["port"]] if place["port"] else []
    login = (place["to"] or "") + place["host"]
    try:
        said = subprocess.run(
            ["sftp", "-q", "-b", "-", f"-oConnectTimeout={_DF_TIMEOUT_S}", *port, login],
            input=f"df {shlex.quote(place['path'])}\n",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DF_TIMEOUT_S,
            start_new_session=True,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^\s*\d+\s+\d+\s+(\d+)\s+\d+\s+\d+%", said, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


@click.command()
@by_inventory
def init_(file: str) -> None:
    """Make the repository that BACKUP_TO names; one that is there stays as it is.

    Exit codes: 0 made, 1 failed, 2 refused.
    """
    deployment = inventory.read(file)
    opened = _of(deployment)
    env_file.refuse_tracked(opened.password_file)
    init(deployment)
    print(
        f"{opened.url}: a new, empty repository\nIts password is in {opened.password_file}: keep a "
        "copy elsewhere. Without it nobody reads the backups."
    )


@click.command(context_settings={"ignore_unknown_options": True})
@by_inventory
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def restic_(file: str, words: tuple[str, ...]) -> int:
    """Run restic itself on the repository of BACKUP_TO, with WORDS: what it ends with."""
    deployment = inventory.read(file)
    arguments = shlex.split(" ".join(words)) or ["snapshots"]
    try:
        return subprocess.call(
            ["restic", *arguments],
            env=environ(deployment),
            timeout=None,  # endless: who types it sees it, and may end it
        )
    except FileNotFoundError:
        raise refused(deployment, "", 127) from None
