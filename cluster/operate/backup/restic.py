"""The words of `restic`: shell lines for the host that runs it, and what it says. Pure.

Only what 0.14 has, which is Debian 12's; later ones say the same in other words. It is told its
repository, password and keys by variables, which a host reads from its standard input: they are in
no argument, which every user of a host sees.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from cluster.config.deployment import Deployment
from cluster.config.repository import PASSWORD_FILE, TO
from cluster.refusal import Refusal, understood

#: How long it may take to say anything: later ones try for a quarter of an hour.
ANSWER_S = 60
#: The suffix of a note: how many bytes of a replica's file the repository did not have.
ADDED = "added"
#: The tag of all that is ours, and of a set's last snapshot: with it the set is whole.
_OURS, _MANIFEST = "wallet-service", "manifest"
TIMED_OUT = 124  # `timeout`'s own exit code
_NOT_THERE, _LOCKED, _WRONG_PASSWORD = 10, 11, 12  # its own, later than 0.14

_READ_SETTINGS = (
    "set -eu; unset RESTIC_PASSWORD_FILE RESTIC_PASSWORD_COMMAND RESTIC_REPOSITORY_FILE\n"
    'while IFS= read -r each && test -n "$each"; do export "$each"; done; exec </dev/null\n'
    "command -v restic >/dev/null || { echo restic: not found >&2; exit 127; }\n"
)


@dataclass(frozen=True)
class Snapshot:
    """One file in a repository: a replica's data file, or a set's manifest."""

    id: str
    set_name: str
    #: None: the manifest.
    replica: int | None


def settings(environ: Mapping[str, str]) -> list[str]:
    """The lines of standard input that ``told`` reads."""
    return [*(f"{name}={value}" for name, value in environ.items()), ""]


def told(script: str) -> str:
    """The script, once it has read its settings from its standard input."""
    return f"{_READ_SETTINGS}{script}"


def probe(repository_id: str) -> str:
    """Do with a repository what a backup does, but for its bytes: reach, open and lock it.

    It fails for another one than this machine has at the same address.
    """
    return (
        f"config=$(timeout {ANSWER_S} restic cat config)\n"
        f'case "$config" in *{repository_id}*) ;; *) echo another repository >&2; exit 1;; esac'
    )


def store(copy: str, deployment: Deployment, set_name: str, index: int, status: str) -> str:
    """Store what ``copy`` prints as a snapshot; ``status`` is a file for its exit code.

    A pipe has the exit code of its last program only. What was stored of half a copy belongs to a
    set without a manifest: it is none.
    """
    options = " ".join(put(deployment, set_name, index))
    return (
        f"{{ {copy}; echo $? >{shlex.quote(status)}; }} | restic {options}\n"
        f'test "$(cat {shlex.quote(status)})" = 0\n'
        f"rm {shlex.quote(status)}"
    )


def put(deployment: Deployment, set_name: str, index: int | None = None) -> list[str]:
    """The arguments that store standard input: replica ``index``'s file, or the manifest."""
    tags = [*tags_of(deployment), f"set={set_name}"]
    tags += [_MANIFEST if index is None else f"replica={index}"]
    named = [f"--stdin-filename={_file_name(index)}", f"--tag={','.join(tags)}"]
    return ["backup", "--json", "--quiet", "--stdin", *named]


def tags_of(deployment: Deployment) -> list[str]:
    """The tags of all snapshots of a cluster: a repository may have several clusters'."""
    name = quote(deployment.name, safe="")  # a comma would end the tag
    cluster = f"cluster={deployment.cluster.id}"
    return [_OURS, cluster, f"deployment={name}", f"engine={deployment.engine}"]


def dump(snapshot: str, index: int | None = None) -> list[str]:
    """The arguments that print what was stored. Each byte is checked before it is printed."""
    return ["dump", snapshot, f"/{_file_name(index)}"]


def _file_name(index: int | None) -> str:
    return "manifest.json" if index is None else f"replica-{index}.tigerbeetle"


def added(said: str) -> int:
    """Bytes that the repository did not have, by what a backup said. Raises Refusal.

    Before they are packed: 0.14 does not know what they take then.
    """
    with understood("restic", expected="a summary of what it stored", fix="look at what it says"):
        return int(json.loads(said.strip().splitlines()[-1])["data_added"])


def parse(listing: str) -> list[Snapshot]:
    """Our snapshots in what ``snapshots --json`` prints, oldest first. Raises Refusal."""
    with understood("restic", expected="a list of snapshots", fix="look at `restic snapshots`"):
        found = []
        for each in sorted(json.loads(listing) or [], key=lambda each: str(each["time"])):
            tags = each.get("tags") or []
            value = dict(tag.split("=", 1) for tag in tags if "=" in tag)
            if _OURS in tags and (_MANIFEST in tags or "replica" in value):
                replica = None if _MANIFEST in tags else int(value["replica"])
                found.append(Snapshot(str(each["id"]), value["set"], replica))
        return found


def whole(snapshots: Iterable[Snapshot]) -> list[str]:
    """The names of the whole sets, oldest first: those that have a manifest."""
    return sorted({each.set_name for each in snapshots if each.replica is None})


def reason(said: str) -> str:
    """Why it has failed: the line of all that it said that says so."""
    lines = [line for line in said.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith('{"message_type":"exit_error"'):
            lines[number] = str(json.loads(line)["message"]).splitlines()[0]
    if of_ssh := [line for line in lines if line.startswith("subprocess ssh: ")]:
        return of_ssh[-1].removeprefix("subprocess ssh: ").strip()
    fatal = [line.partition("Fatal: ")[2] for line in lines if "Fatal: " in line]
    fatal += [line for line in lines if "Fatal: " not in line and DAMAGED.search(line)]
    fatal = [line for line in fatal if "context canceled" not in line]
    retried = [line for line in lines if "retrying after " in line]
    if fatal:
        return fatal[-1].strip()
    if retried:
        return retried[-1].partition("retrying after ")[2].partition(": ")[2].strip()
    failed = [line for line in lines if "error" in line.lower()]
    return (failed or lines or ["no message"])[-1].strip()


#: What it says of bytes that are not those it has written.
DAMAGED = re.compile(
    r"verification failed|invalid data returned|is damaged|Unmarshal|invalid character"
    r"|hash mismatch|wrong hash|not found in (the )?(index|repository)|blob .* not found",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"repository does not exist|unable to open config file"
    r".*(no such file|not exist|key does not|not found)",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left|quota|disk full|not enough space|file too large", re.IGNORECASE)
_BY = re.compile(r"already locked (exclusively )?by (?P<who>PID \d+ on \S+ by \S+)")
_AGO = re.compile(r"\((?P<age>\S+) ago\)")


def refused(url: str, said: str, code: int, named: str) -> Refusal:
    """What it has failed with, by kind; ``named`` is the deployment's ``INVENTORY=``."""
    why, all_of_it = reason(said), " ".join(said.split())
    if code in (126, 127) or "restic: not found" in said:
        fix = f"apt-get install restic, 0.14 or newer; on servers: make up {named}"
        return Refusal("restic", expected="it on PATH", found="none", fix=fix)
    if code == _WRONG_PASSWORD or "wrong password" in said:
        wanted, fix = f"the password of the repository {url}", "bring back its own"
        return Refusal(PASSWORD_FILE, expected=wanted, found="another", fix=fix)
    if code == _LOCKED or "already locked" in said:
        by, age = _BY.search(said), _AGO.search(said)
        found = f"a lock of {by['who'] if by else why}"
        return Refusal(
            url,
            expected="a repository that nobody holds",
            found=f"{found}, {age['age']} old" if age else found,
            fix=f"wait for its end; if that process is gone: make restic {named} RUN=unlock",
        )
    if DAMAGED.search(why):
        fix = "docs/backup.md#a-damaged-repository"
        return Refusal(url, expected="what was stored", found=f"damage: {why}", fix=fix)
    if _FULL.search(all_of_it):
        return Refusal(url, expected="room for the backup", found=why, fix="make room there")
    if code == _NOT_THERE or _ABSENT.search(all_of_it):
        fix = f"mount it, if it is one; for a new one: make backup-init {named}"
        return Refusal(TO, expected=f"a repository at {url}", found="none", fix=fix)
    has_ended = code == TIMED_OUT or "context canceled" in said
    if has_ended and not re.search("retrying after |subprocess ssh", said):
        why = f"no answer within {ANSWER_S} s"
    fix = "mend that, and repeat"
    if url.startswith("sftp:"):
        fix += "; whoever runs restic, root on a server, must get in by `sftp` without a question"
    return Refusal(url, expected="to reach the repository", found=why, fix=fix)
