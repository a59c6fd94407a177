"""Data files packed and unpacked: the shell scripts, for the host that holds them. Pure.

A script holds the data file's lock while it reads, so no server can change the file meanwhile.
Unpacking never touches the data file: it writes ``.restoring`` beside it. Only when every replica's
is complete are they renamed. The old files are kept as ``.replaced`` until the cluster commits.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from cluster.operate.backup_set import UNPACK
from cluster.runtimes.base import Runtime
from cluster.tigerbeetle.data_file import ACCEPTED, REPLACED, RESTORING

#: zstd packs at the disk's speed, gzip at a tenth of it, but every host has gzip.
_CHOOSE_PACKER = (
    "if command -v zstd >/dev/null; then pack='zstd -q -1 -T0 -c' as=zst; "
    "else pack='gzip -1 -c' as=gz; fi"
)


def together(scripts: list[str]) -> str:
    """Run scripts at the same time; when all have ended, fail if any has failed."""
    begun = "".join(f'(\n{script}\n) & pids="$pids $!"\n' for script in scripts)
    return f"pids=\n{begun}code=0\nfor pid in $pids; do wait $pid || code=1; done\nexit $code"


def require_room(runtime: Runtime, indexes: Collection[int], directory: Path) -> str:
    """Fail if ``directory`` has no space for all whole files: how well they pack is unknown."""
    sizes = (f"each=$({_size(runtime, i)}) || exit 1\nsize=$((size + each))\n" for i in indexes)
    return (
        f"size=0\n{''.join(sizes)}"
        f"mkdir -p -m 700 {_q(directory)}\n"
        f"free=$(df -Pk {_q(directory)} | awk 'NR == 2 {{ print $4 }}')\n"
        'test $((size / 1024)) -le "$free" || {\n'
        f'echo "BACKUP_DIR: expected $((size / 1048576)) MiB free in {_q(directory)}, found '
        '$((free / 1024)) MiB. Fix: free some, or set BACKUP_DIR to a larger disk" >&2; exit 1; }'
    )


def pack(runtime: Runtime, index: int, target: Path) -> str:
    """Pack a stopped replica's file into ``target`` with a suffix; its size and superblock beside.

    A pipe has the exit code of its last program only, so the first one's goes through a file.
    """
    copy = runtime.unlocked(index, f"cat {_q(runtime.data_file(index))}")
    status = f"{target}.status"
    return (
        f"set -eu; umask 077; {_CHOOSE_PACKER}\n"
        f"{{ {copy}; echo $? >{_q(status)}; }} | $pack >{_q(target)}.$as\n"
        f'test "$(cat {_q(status)})" = 0\n'
        f"rm {_q(status)}\n"
        f"{_size(runtime, index)} >{_q(target)}.size\n"
        f"{runtime.inspect(index)} >{_q(target)}.superblock 2>&1"
    )


def unpack(runtime: Runtime, index: int, packed: Path, size: int) -> str:
    """Unpack beside the data file, as ``.restoring``: of ``size`` bytes, and on the disk."""
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
    return f"{UNPACK[packed.suffix[1:]]} {_q(packed)} | {runtime.sh(index, write)}"


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


def _size(runtime: Runtime, index: int) -> str:
    return runtime.sh(index, f"stat -c %s {_q(runtime.data_file(index))}")


def _q(path: str | Path) -> str:
    return shlex.quote(str(path))
