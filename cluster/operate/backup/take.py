"""``make backup``: every data file of one moment, packed, checked and bound by a manifest."""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import shutil
import time
from collections.abc import Iterator
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
from cluster.operate.backup import freeze, sets
from cluster.operate.backup.freeze import Cut, Freezer, Way
from cluster.operate.backup.sets import Manifest, PackedFile
from cluster.refusal import Failed, Refusal, begun
from cluster.runtimes import of, tunnel
from cluster.tigerbeetle import data_file, totals, upgrade_path

KEEP = 7
_PARTIAL = ".partial"
#: For a change of the primary that is under way when a backup begins.
_SETTLE_S = 20.0


def take(inventory_file: str, deployment: Deployment, keep: int, asked: Way | None = None) -> Path:
    """Take a backup and let the ones beyond ``keep`` go; the new set's directory.

    ``asked`` is the way that is asked for. Raises Refusal before anything is touched, Failed after
    everything is as it was.
    """
    was_running = is_running(deployment)
    if was_running:
        _require_whole(deployment)
    else:
        lost = facts.missing(deployment, observe(deployment))
        existence.require_files("backup", deployment, lost)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}"
    with (
        locked(deployment) as root,
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
            cut = _pack(inventory_file, deployment, partial, freezer, was_running=was_running)
            after = _read_totals(deployment) if was_running else None
            manifest = _manifest(deployment, partial, cut or Cut(now), before, after)
            written = partial / sets.MANIFEST
            written.write_text(manifest.model_dump_json(indent=1) + "\n")
            written.chmod(0o600)
            taken = partial.rename(root / manifest.name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for old in sets.expired(root, deployment, keep):
            print(f"removing {old.name}: KEEP={keep}")
            sets.remove(old)
    _report(deployment, manifest, taken)
    return taken


def is_running(deployment: Deployment) -> bool:
    """True when any replica has a process, or its port answers."""
    processes = of(deployment).states() or {}
    with_process = any(process.pid for process in processes.values())
    return with_process or any(map(health.port_answers, deployment.clients))


@contextlib.contextmanager
def locked(deployment: Deployment) -> Iterator[Path]:
    """One backup or restore of a deployment at a time, in its directory. Raises Refusal."""
    root = sets.directory(deployment.name)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(
                f"{root}: expected no other backup or restore, found one under way. "
                "Fix: wait for its end"
            ) from None
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
    partial: Path,
    freezer: Freezer | None,
    *,
    was_running: bool,
) -> Cut | None:
    """Pack every data file; when all were frozen, if they were."""
    data = {"backup_set": str(partial)}

    def run(task: str, *, quiet: bool = False) -> None:
        phase.run(inventory_file, f"tasks.backup.{task}", data=data, quiet=quiet)

    try:
        if freezer is None:
            run("take" if was_running else "pack")
            return None
        try:
            run("try_out")
            cut = freezer.clone()
            say(f"all replicas were frozen for {cut.frozen_s:.2f} s, and run; packing the clones")
            run("pack_clones")
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
    until = time.monotonic() + _SETTLE_S
    while unwell := ", ".join(str(r) for r in health.of_replicas(deployment) if not r.is_normal):
        if "view_change" not in unwell or time.monotonic() > until:
            break
        time.sleep(1)  # they agree on a primary, as after a freeze on a busy machine
    if unwell:
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
    files = [_packed(partial, replica.index) for replica in deployment.cluster.replicas]
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
    stem = f"replica-{index}"
    (packed,) = [p for s in sets.UNPACK if (p := partial / f"{stem}.{s}").exists()]
    size, superblock = _taken(partial / f"{stem}.size"), _taken(partial / f"{stem}.superblock")
    return sets.packed_file(packed, data_file.parse_superblock(superblock), int(size))


def _taken(note: Path) -> str:
    """What a host has noted for the manifest, which replaces the note; empty without one."""
    text = note.read_text() if note.exists() else ""
    note.unlink(missing_ok=True)
    return text


def _report(deployment: Deployment, manifest: Manifest, taken: Path) -> None:
    packed, whole = manifest.size / 1024**2, manifest.data_size / 1024**2
    print(f"backup: {taken} of {manifest.whose}")
    print(f"  {len(manifest.files)} data files, {packed:,.1f} MiB packed of {whole:,.0f} MiB")
    if manifest.stopped_s is not None:
        print(f"  downtime {manifest.stopped_s:.1f} s, from the stop to the next commit")
    if manifest.frozen_s is not None:
        print(f"  no downtime: all replicas were frozen for {manifest.frozen_s:.2f} s")
    if manifest.before:
        print(f"  {manifest.before}, read before")
    named = deployment.named
    print(f"  prove it: make backup-verify {named} FROM={shlex.quote(str(taken))}")


def _asked(way: str | None) -> Way | None:
    """What WAY= asks for. Raises Refusal."""
    if way not in (None, *freeze.WAYS):
        fix = "leave it out for the one that fits the file systems"
        raise Refusal("WAY", expected="freeze or stop", found=way, fix=fix)
    return way


@click.command()
@by_inventory
@click.option("--keep", default=str(KEEP), help=f"How many to keep; default: {KEEP}.")
@click.option("--way", help="freeze or stop; default: freeze, where every data file can be cloned.")
def main(file: str, keep: str, way: str | None) -> None:
    """Back up all data files of one moment.

    All replicas are frozen for less than a second where their file systems can clone a file;
    elsewhere they stop, mostly for less than a minute.

    Exit codes: 0 taken, 1 failed (nothing is left behind; the last line says whether all replicas
    run again), 2 refused.
    """
    deployment = tunnel.reached(inventory.read(file))
    if not keep.isdecimal() or int(keep) < 1:
        wanted = "a number of backups, 1 or more"
        raise Refusal("KEEP", expected=wanted, found=keep, fix=f"leave it out for {KEEP}")
    take(file, deployment, int(keep), _asked(way))
