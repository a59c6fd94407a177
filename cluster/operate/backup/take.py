"""``make backup``: every data file of one moment, packed, checked and bound by a manifest."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from cluster.checks import existence, facts
from cluster.checks.observe import observe
from cluster.command import by_inventory
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.interruption import say, whole
from cluster.operate import last_word, phase
from cluster.operate.backup import freeze, outcomes, repository, restic, retention, sets, turns
from cluster.operate.backup.freeze import Cut, Freezer, Way
from cluster.operate.backup.outcomes import Taken
from cluster.operate.backup.retention import Policy
from cluster.operate.backup.sets import Manifest, PackedFile, StoredFile
from cluster.refusal import Failed, Refusal, begun
from cluster.runtimes import of, tunnel
from cluster.tigerbeetle import data_file, totals, upgrade_path

_PARTIAL = ".partial"


def take(
    inventory_file: str, deployment: Deployment, keep: Policy, asked: Way | None = None
) -> Path:
    """Take a backup and let those go that ``keep`` does not; the new set's directory.

    ``asked`` is the way that is asked for. Raises Refusal before anything is touched, Failed after
    everything is as it was.
    """
    with locked(deployment) as root:  # first: whoever has the turn may have stopped the replicas
        manifest = _take(inventory_file, deployment, root, asked)
        outcomes.note(deployment, Taken(name=manifest.name, at=manifest.taken_at))
        with begun(f"; backup {manifest.name} is taken"):
            _let_go(deployment, manifest, keep)
    return root / manifest.name


def _take(inventory_file: str, deployment: Deployment, root: Path, asked: Way | None) -> Manifest:
    was_running = is_running(deployment)
    if was_running:
        _require_whole(deployment)
    else:
        lost = facts.missing(deployment, observe(deployment))
        existence.require_files("backup", deployment, lost)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}"
    data = {}
    if deployment.repository is not None:
        say(f"opening the repository {deployment.repository.url}")
        data["repository"] = repository.check(deployment)
    with (
        last_word.said(deployment, "; no backup was taken", is_up=was_running),
        _freezer(deployment, name, asked, is_down=not was_running) as freezer,
        begun(),
    ):
        for left in root.glob(f"*{_PARTIAL}"):  # killed in the middle: never a backup
            shutil.rmtree(left)
        partial = root / f"{name}{_PARTIAL}"
        partial.mkdir(mode=0o700)
        try:
            before = _read_totals(deployment) if was_running else None
            data["backup_set"] = str(partial)
            cut = _pack(inventory_file, deployment, data, freezer, was_running=was_running)
            after = _read_totals(deployment) if was_running else None
            manifest = _manifest(deployment, partial, cut or Cut(now), before, after)
            written = partial / sets.MANIFEST
            written.write_text(manifest.model_dump_json(indent=1) + "\n")
            written.chmod(0o600)
            if manifest.is_stored:
                repository.put(deployment, manifest)
            taken = partial.rename(root / manifest.name)
        except BaseException:
            _forget(deployment, partial)
            raise
    _report(deployment, manifest, taken)
    return manifest


def _let_go(deployment: Deployment, taken: Manifest, keep: Policy) -> None:
    """Let go what ``keep`` does, of the kind that was just taken; ``taken`` stays on any clock.

    Not while one is verified: whatever is read stays, and a repository is not pruned then.
    """
    if name := turns.verified_now(deployment):
        print(f"  none is let go, since {name} is being verified")
        return
    if taken.is_stored:
        old = retention.expired(keep, repository.names(deployment))
    else:
        old = [p.name for p in sets.expired(sets.directory(deployment.name), deployment, keep)]
    old = [name for name in old if name != taken.name]
    for name in old:
        print(f"removing {name}: KEEP={shlex.quote(str(keep))}")
    if taken.is_stored:
        repository.drop(deployment, old)  # and what killed backups have left
    else:
        for name in old:
            sets.remove(sets.directory(deployment.name) / name)


def _forget(deployment: Deployment, partial: Path) -> None:
    """After a failure: here, and in the repository, where a later backup does it otherwise."""
    with whole("removing what was packed"):
        shutil.rmtree(partial, ignore_errors=True)
        if deployment.repository is not None:
            with contextlib.suppress(Refusal):
                repository.forget(deployment, partial.name.removesuffix(_PARTIAL))


def is_running(deployment: Deployment) -> bool:
    """True when any replica has a process, or its port answers."""
    processes = of(deployment).states() or {}
    with_process = any(process.pid for process in processes.values())
    return with_process or any(map(health.port_answers, deployment.clients))


@contextlib.contextmanager
def locked(deployment: Deployment) -> Iterator[Path]:
    """One backup or restore of a deployment at a time, in its directory. Raises Busy."""
    root = sets.directory(deployment.name)
    with turns.alone(root / ".lock", "backup or restore", root):
        yield root


@contextlib.contextmanager
def _freezer(
    deployment: Deployment, name: str, asked: Way | None, *, is_down: bool
) -> Iterator[Freezer | None]:
    """Sessions beside the replicas; None where they have to stop. It says which way, and why.

    Raises Refusal where the freeze that was asked for is not possible.
    """
    if is_down:
        yield None
        return
    with contextlib.ExitStack() as kept:
        freezer = None
        if asked != "stop":
            freezer = kept.enter_context(freeze.beside(deployment, name))
        way, why = freeze.choose(asked, freezer.cannot if freezer else {})
        say(f"way: {freeze.WAYS[way]}. Why: {why}")
        if way == "stop":
            kept.close()
        yield freezer if way == "freeze" else None


def _pack(
    inventory_file: str,
    deployment: Deployment,
    data: Mapping[str, str],
    freezer: Freezer | None,
    *,
    was_running: bool,
) -> Cut | None:
    """Pack or store every data file; when all were frozen, if they were."""
    partial = Path(data["backup_set"])

    def run(task: str, *, quiet: bool = False) -> None:
        phase.run(inventory_file, f"tasks.backup.{task}", data=data, quiet=quiet)

    try:
        if freezer is None:
            run("take" if was_running else "pack")
            return None
        try:
            run("try_out")
            cut = freezer.clone()
            say(f"all replicas were frozen for {cut.frozen_s:.2f} s, and run; keeping the clones")
            run("keep_clones")
        finally:
            freezer.close()
    except BaseException:  # Ctrl-C too: the cluster must not stay down, nor stop once more
        is_stopped = (partial / sets.STOPPED).exists()
        if is_stopped and not (partial / sets.COMMITTED).exists():
            with whole("starting the replicas again"):
                say("the backup failed; starting the replicas again")
                run("start_again", quiet=True)
        elif deployment.servers:
            with whole("removing what was packed"), contextlib.suppress(Failed):
                say("the backup failed; removing what it has left on the servers")
                run("forget", quiet=True)
        raise
    return cut


def _require_whole(deployment: Deployment) -> None:
    """Raises Refusal unless every replica works: after the stop each must come back."""
    replicas = health.settled(lambda: health.of_replicas(deployment))
    if unwell := ", ".join(str(r) for r in replicas if not r.is_normal):
        otherwise = (
            f"make status {deployment.named}; for a lost data file: make recover "
            f"{deployment.named} REPLICA=N"
        )
        fix = health.remedy(unwell, otherwise)
        raise Refusal(f"backup: expected every replica to be normal, found {unwell}. Fix: {fix}")


def _read_totals(deployment: Deployment) -> totals.Totals | None:
    print("reading the ledger's totals", flush=True)
    found = totals.read(deployment)
    if found is None:
        print(f"  not read within {totals.TIMEOUT_S:g} s: the manifest has none")
    return found


def _manifest(
    deployment: Deployment,
    partial: Path,
    cut: Cut,
    before: totals.Totals | None,
    after: totals.Totals | None,
) -> Manifest:
    """From what the hosts have written; their notes are removed."""
    indexes = [replica.index for replica in deployment.cluster.replicas]
    files: list[PackedFile] | list[StoredFile]
    if deployment.repository is None:
        files = [_packed(partial, index) for index in indexes]
    else:
        ids = repository.stored(deployment, partial.name.removesuffix(_PARTIAL))
        files = [_stored(partial, index, ids) for index in indexes]
    stopped = float(_taken(partial / sets.STOPPED) or 0)
    committed = float(_taken(partial / sets.COMMITTED) or 0)
    was_stopped: Way | None = "stop" if stopped else None
    return Manifest(
        name=partial.name.removesuffix(_PARTIAL),
        deployment=deployment.name,
        engine=deployment.engine,
        cluster_id=str(deployment.cluster.id),
        replica_count=len(deployment.cluster.replicas),
        release=max((f.release for f in files), key=upgrade_path.triple),
        taken_at=datetime.fromtimestamp(stopped, UTC) if stopped else cut.taken_at,
        way=was_stopped if cut.frozen_s is None else "freeze",
        stopped_s=round(committed - stopped, 2) if stopped and committed else None,
        frozen_s=cut.frozen_s,
        before=before,
        after=after,
        files=files,
    )


def _packed(partial: Path, index: int) -> PackedFile:
    (packed,) = [p for s in sets.UNPACK if (p := partial / f"replica-{index}.{s}").exists()]
    return sets.packed_file(packed, *_noted(partial, index))


def _stored(partial: Path, index: int, ids: Mapping[int, str]) -> StoredFile:
    if index not in ids:
        raise Failed(
            f"replica {index}: expected its file in the repository, found none: its server has "
            "stored it elsewhere. Fix: see that each server has the same repository at BACKUP_TO"
        )
    added = int(_taken(partial / f"replica-{index}.{restic.ADDED}"))
    return sets.stored_file(ids[index], added, *_noted(partial, index))


def _noted(partial: Path, index: int) -> tuple[data_file.Superblock, int]:
    """What a host says of its data file: the superblock, and the size in bytes."""
    stem = partial / f"replica-{index}"
    superblock = _taken(stem.with_suffix(".superblock"))
    return data_file.parse_superblock(superblock), int(_taken(stem.with_suffix(".size")))


def _taken(note: Path) -> str:
    """What a host has noted for the manifest, which replaces the note; empty without one."""
    text = note.read_text() if note.exists() else ""
    note.unlink(missing_ok=True)
    return text


def _report(deployment: Deployment, manifest: Manifest, taken: Path) -> None:
    packed, whole = manifest.size / 1024**2, manifest.data_size / 1024**2
    to = deployment.repository.url if deployment.repository else str(taken)
    how = "packed" if deployment.repository is None else "new to the repository, before it packs,"
    print(f"backup: {manifest.name} of {manifest.whose}, in {to}")
    print(f"  {len(manifest.files)} data files, {packed:,.1f} MiB {how} of {whole:,.0f} MiB")
    if manifest.stopped_s is not None:
        print(f"  downtime {manifest.stopped_s:.1f} s, from the stop to the next commit")
    if manifest.frozen_s is not None:
        print(f"  no downtime: all replicas were frozen for {manifest.frozen_s:.2f} s")
    if manifest.before:
        print(f"  {manifest.before}, read before")
    named = deployment.named
    source = str(taken) if deployment.repository is None else manifest.name
    print(f"  prove it: make backup-verify {named} FROM={shlex.quote(source)}")


def _asked(way: str | None) -> Way | None:
    """What WAY= asks for. Raises Refusal."""
    if way not in (None, *freeze.WAYS):
        fix = "leave it out for the one that fits the file systems"
        raise Refusal("WAY", expected="freeze or stop", found=way, fix=fix)
    return way


@click.command()
@by_inventory
@click.option("--keep", default=str(retention.DEFAULT), help="How many of which age to keep.")
@click.option("--way", help="freeze or stop; default: freeze, where every data file can be cloned.")
@click.option("--scheduled", is_flag=True, help="By a timer: nothing to do where one is under way.")
def main(file: str, keep: str, way: str | None, *, scheduled: bool) -> None:
    """Back up all data files of one moment.

    All replicas are frozen for less than a second where their file systems can clone a file;
    elsewhere they stop, mostly for less than a minute.

    Exit codes: 0 taken, 1 failed (nothing is left behind; the last line says whether all replicas
    run again), 2 refused.
    """
    policy, asked = retention.parse(keep), _asked(way)
    deployment = tunnel.reached(inventory.read(file))
    with turns.left_to_others(is_scheduled=scheduled):
        take(file, deployment, policy, asked)
