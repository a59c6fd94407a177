"""Data files packed and unpacked: the shell scripts, for the host that holds them. Pure.

A script holds the data file's lock while it reads, so no server can change the file meanwhile.
Unpacking never touches the data file: it writes ``.restoring`` beside it. Only when every replica's
is complete are they renamed. The old files are kept as ``.replaced`` until the cluster commits.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path, PurePath, PurePosixPath

from cluster.operate.backup import restic
from cluster.operate.backup.sets import UNPACK, PackedFile, StoredFile
from cluster.runtimes.base import Runtime
from cluster.tigerbeetle.data_file import ACCEPTED, CLONE, REPLACED, RESTORING

#: zstd packs at the disk's speed, gzip at a tenth of it, but every host has gzip.
_CHOOSE_PACKER = (
    "if command -v zstd >/dev/null; then pack='zstd -q -1 -T0 -c' as=zst; "
    "else pack='gzip -1 -c' as=gz; fi"
)


def together(scripts: list[str]) -> str:
    """Run scripts at the same time; when all have ended, fail if any has failed."""
    begun = "".join(f'(\n{script}\n) & pids="$pids $!"\n' for script in scripts)
    return f"pids=\n{begun}code=0\nfor pid in $pids; do wait $pid || code=1; done\nexit $code"


def require_room(runtime: Runtime, indexes: Collection[int], directory: Path, fix: str) -> str:
    """Fail if ``directory`` has no space for all whole files: how well they pack is unknown."""
    paths = {i: runtime.data_file(i) for i in indexes}
    sizes = (
        f"each=$({_size(runtime, i, paths[i])}) || exit 1\nsize=$((size + each))\n" for i in paths
    )
    why = (
        f"backup: expected to make the directory {directory}, found what is said above. "
        "Fix: mend that; no replica was stopped"
    )
    return (
        f"size=0\n{''.join(sizes)}"
        f"mkdir -p -m 700 {_q(directory)} || {{ echo {_q(why)} >&2; exit 1; }}\n"
        f"{_compared('backup', '$((size / 1024))', directory, fix)}"
    )


def require_room_beside(runtime: Runtime, index: int, needed: int) -> str:
    """Fail if a data file's disk has no ``needed`` bytes more: the old file stays for a while."""
    beside = PurePosixPath(runtime.data_file(index)).parent
    fix = f"free some, or set {runtime.DISK_SETTING} to a larger disk"
    return runtime.sh(index, _compared("restore", str(needed // 1024), beside, fix))


def clone_of(runtime: Runtime, index: int, name: str) -> str:
    """The path of the data file's clone for the backup of this name."""
    return f"{runtime.data_file(index)}{CLONE}{name}"


def pack(runtime: Runtime, index: int, target: Path) -> str:
    """Pack a stopped replica's file as ``target`` with a suffix; its size and superblock beside."""
    path = runtime.data_file(index)
    return _with_notes(runtime, index, path, runtime.unlocked(index, f"cat {_q(path)}"), target)


def copy_clone(runtime: Runtime, index: int, clone: str) -> str:
    """Print a clone, while the replica runs."""
    return runtime.sh(index, f"cat {_q(clone)}")


def pack_clone(runtime: Runtime, index: int, clone: str, target: Path) -> str:
    """The same as ``pack`` of a clone."""
    return _with_notes(runtime, index, clone, copy_clone(runtime, index, clone), target)


def note(runtime: Runtime, index: int, path: str, target: Path) -> str:
    """Note the size of a data file, or of its clone, and its superblock beside ``target``."""
    return (
        f"{_size(runtime, index, path)} >{_q(target)}.size\n"
        f"{runtime.inspect(index, path)} >{_q(target)}.superblock 2>&1"
    )


def try_out(runtime: Runtime, index: int, target: Path) -> str:
    """Do with one byte what ``pack`` does with the whole file, while the replica runs.

    So rights and programs are known to do before anything is stopped.
    """
    data = _q(runtime.data_file(index))
    byte = runtime.sh(index, f"command -v flock >/dev/null && head -c 1 {data}")
    why = (
        f"replica {index}: expected to read its data file, pack it with zstd or gzip, and run its "
        "program, found what is said above. Fix: mend that; no replica was stopped"
    )
    return (
        f"why={_q(why)}; trap 'test $? = 0 || echo \"$why\" >&2' EXIT\n"
        f"{_packed(byte, target)}"
        f"{_size(runtime, index, runtime.data_file(index))} >{_q(target)}.size\n"
        f"{runtime.tigerbeetle(index, 'version')} >/dev/null"
    )


def copy(directory: Path, file: PackedFile | StoredFile) -> str:
    """Print a kept data file: a packed one, which is in ``directory``, or a repository's."""
    if isinstance(file, StoredFile):
        return shlex.join(["restic", "--no-cache", *restic.dump(file.snapshot, file.replica)])
    return f"{UNPACK[file.name.rpartition('.')[2]]} {_q(directory / file.name)}"


def copy_packed(target: Path) -> str:
    """Print what was packed as ``target`` with a suffix; and remove it."""
    each = "; ".join(
        f"if test -e {_q(target)}.{suffix}; then {unpack} {_q(target)}.{suffix} && "
        f"rm {_q(target)}.{suffix}; fi"
        for suffix, unpack in UNPACK.items()
    )
    return f"{{ {each}; }}"


def unpack(runtime: Runtime, index: int, copy: str, size: int) -> str:
    """Write what ``copy`` prints beside the data file, as ``.restoring``: of ``size`` bytes."""
    restoring = _q(runtime.data_file(index) + RESTORING)
    write = (
        f"set -eu; umask 077; rm -f {restoring}\n"
        # Only GNU's dd can leave out the zeros; they are allocated afterwards, as `format` does.
        f"if dd --version >/dev/null 2>&1; then dd of={restoring} bs=1M iflag=fullblock "
        f"conv=sparse status=none; else cat >{restoring}; fi\n"
        f"test $(stat -c %s {restoring}) = {size} || {{ echo 'not the whole file' >&2; exit 1; }}\n"
        f"fallocate -l {size} {restoring}\n"
        "sync"
    )
    return f"{copy} | {runtime.sh(index, write)}"


#: Put the unpacked file in the place of the old one, which is kept; an empty one for none.
SWAP = """\
set -eu; umask 077; test ! -e {replaced}; test -e {restoring}
if test -e {data}; then flock -n {data} mv {data} {replaced}; else : >{replaced}; fi
mv {restoring} {data}; sync"""
#: Undo ``SWAP``, however far it came; do nothing where it never began.
UNDO = """\
rm -f {restoring}
if test -s {replaced}; then mv -f {replaced} {data}; \
elif test -e {replaced}; then rm -f {data} {replaced}; fi"""
#: Undo an unpacking after which nothing was renamed.
DISCARD = "rm -f {restoring}"
#: The cluster commits with the restored files. On all replicas before ``DROP`` on any.
ACCEPT = "test ! -e {replaced} || mv -f {replaced} {accepted}"
DROP = "rm -f {accepted}"
#: Fail if an earlier restore was interrupted: only a person knows which file is right. Where it has
#: replaced none, as on new disks, there is nothing to choose.
REFUSE_LEFTOVER = """\
test ! -s {replaced} || {{ echo {replaced}: expected none, found what an interrupted \
restore has replaced. Fix: remove it, if the cluster was used since, or put it back \
>&2; exit 1; }}"""


def on_files(script: str, runtime: Runtime, index: int) -> str:
    """The shell line that runs one of the scripts above on the replica's files."""
    data = runtime.data_file(index)
    names = {"data": data, "restoring": data + RESTORING}
    names |= {"replaced": data + REPLACED, "accepted": data + ACCEPTED}
    return runtime.sh(index, script.format(**{name: _q(path) for name, path in names.items()}))


def _packed(copy: str, target: Path) -> str:
    """Pack what ``copy`` prints into ``target`` with a suffix.

    A pipe has the exit code of its last program only, so the first one's goes through a file.
    """
    status = f"{_q(target)}.status"
    return (
        f"set -eu; umask 077; {_CHOOSE_PACKER}\n"
        f"{{ {copy}; echo $? >{status}; }} | $pack >{_q(target)}.$as\n"
        f'test "$(cat {status})" = 0\n'
        f"rm {status}\n"
    )


def _with_notes(runtime: Runtime, index: int, path: str, copy: str, target: Path) -> str:
    return f"{_packed(copy, target)}{note(runtime, index, path, target)}"


def _compared(what: str, needed_kib: str, directory: PurePath, fix: str) -> str:
    """Fail with what is needed and what is free; the one may be an expression of the shell's."""
    return (
        f"at={_q(directory)}\n"
        "free=$(df -Pk \"$at\" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)\n"
        f'test {needed_kib} -le "$free" || {{\n'
        f'echo "{what}: expected $(({needed_kib} / 1024)) MiB free in $at, found $((free / 1024)) '
        f'MiB. Fix: {fix}" >&2; exit 1; }}'
    )


def _size(runtime: Runtime, index: int, path: str) -> str:
    return runtime.sh(index, f"stat -c %s {_q(path)}")


def _q(path: str | PurePath) -> str:
    return shlex.quote(str(path))
