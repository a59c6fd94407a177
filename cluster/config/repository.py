"""The repository that backups go to: ``BACKUP_TO`` and what opens it, in the env file.

The one thing in the env file that is not about the cluster: its names have no prefix, and the
environment wins here, too. Nothing of it is ever an argument of a program, or said.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from cluster import REPOSITORY
from cluster.config import kept, loading
from cluster.refusal import Refusal

TO, PASSWORD_FILE = "BACKUP_TO", "BACKUP_PASSWORD_FILE"
#: What S3 asks for: the words of its own tools, and of restic.
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_REGION = "AWS_DEFAULT_REGION"

_WORD = r"[A-Za-z0-9._~+-]+"
_PATH = rf"(/{_WORD})+/?"
_HOST = rf"({_WORD}@)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])"
_KINDS: Mapping[Literal["directory", "sftp", "s3"], str] = {
    "directory": rf"{_PATH}|~{_PATH}",
    "sftp": rf"sftp:{_HOST}:/?{_WORD}(/{_WORD})*/?|sftp://{_HOST}(:\d+)?/{_PATH}",
    "s3": rf"s3:https?://[A-Za-z0-9.-]+(:\d+)?{_PATH}",
}
_EXPECTED = (
    "a directory (/mnt/backups), sftp:USER@HOST:/PATH, sftp://USER@HOST:PORT//PATH or "
    "s3:https://HOST/BUCKET; letters, digits and . _ ~ + - in its names, and no password"
)


class Repository(BaseModel, frozen=True):
    """Where it is, and what opens it."""

    url: str = Field(description="as restic takes it")
    kind: Literal["directory", "sftp", "s3"]
    password_file: Path
    keys: Mapping[str, str] = Field(repr=False, description="what S3 asks for; empty elsewhere")

    def environ(self) -> dict[str, str]:
        """What restic is told, as variables of its own. Raises Refusal without the password."""
        return {"RESTIC_REPOSITORY": self.url, "RESTIC_PASSWORD": self._password(), **self.keys}

    def _password(self) -> str:
        shown = loading.shown(self.password_file)
        wanted = f"the file {shown} with the repository's password"
        fix = "bring back the one that was kept elsewhere: nobody reads the repository without it"
        try:
            mode = stat.S_IMODE(self.password_file.stat().st_mode)
            text = self.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "one that is no text"
            raise Refusal(PASSWORD_FILE, expected=wanted, found=why, fix=fix) from None
        if mode & 0o077:
            wanted = f"{shown} to be its owner's alone (mode 600)"
            raise Refusal(
                PASSWORD_FILE, expected=wanted, found=f"{mode:o}", fix=f"chmod 600 {shown}"
            )
        if not text or len(text.splitlines()) > 1:
            found = f"{len(text.splitlines())} lines"
            raise Refusal(PASSWORD_FILE, expected=f"{wanted}, in one line", found=found, fix=fix)
        return text


def of(
    env_file: Path, environ: Mapping[str, str] = os.environ, *, is_elsewhere: bool = False
) -> Repository | None:
    """The repository that an env file names, under the environment; None for none.

    ``is_elsewhere``: the replicas are on servers, whose directories are not this machine's.
    Raises Refusal.
    """
    in_file = loading.values_of(loading.text_of(env_file))
    values = {**in_file, **environ}
    given = {name: values.get(name, "") for name in loading.NOT_OF_CLUSTER}
    shown = loading.shown(env_file)
    fix = f"set it in {shown}, or in the environment"
    url = given[TO]
    if not url:
        return None
    kind = next((kind for kind, form in _KINDS.items() if re.fullmatch(form, url)), None)
    if kind is None:
        hidden = re.sub(r"[^/:@]*:[^/@]*@", "…@", url)
        raise Refusal(TO, expected=_EXPECTED, found=repr(hidden), fix=fix)
    if kind == "directory" and is_elsewhere:
        wanted = "sftp: or s3:, which each server reaches"
        raise Refusal(TO, expected=wanted, found=f"{url}, a directory of this machine", fix=fix)
    if not given[PASSWORD_FILE]:
        wanted, how = "the file with the repository's password", f"{fix}; `make init-env` makes one"
        raise Refusal(PASSWORD_FILE, expected=wanted, found="nothing", fix=how)
    if env_file == loading.ENV_FILE and (told := [name for name in _KEYS if in_file.get(name)]):
        wanted, found = "it in the environment, or in a private env file", "it where git tracks it"
        raise Refusal(told[0], expected=wanted, found=found, fix=f"empty it in {shown}, change it")
    for name in _KEYS if kind == "s3" else ():
        if not re.fullmatch(r"\S+", given[name]):
            found = "one with blanks" if given[name] else "nothing"
            raise Refusal(name, expected="a key of the S3 account", found=found, fix=fix)
    keys = {name: given[name] for name in (*_KEYS, _REGION) if kind == "s3" and given[name]}
    file = REPOSITORY / kept.expanded(given[PASSWORD_FILE])
    if kind == "directory":
        url = str(kept.expanded(url))
    return Repository(url=url, kind=kind, password_file=file, keys=keys)
