"""Where backups go is validated before anything is touched; what restic says becomes one line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.config import ENV_FILE, loading, repository
from cluster.config.deployment import Deployment
from cluster.config.repository import Repository
from cluster.operate.backup import listing, restic, sets
from cluster.operate.backup import repository as asked
from cluster.operate.backup.restic import Snapshot
from cluster.refusal import Refusal
from tests.unit.test_backup_set import OURS

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA7", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+"}
NAMED = "INVENTORY=inventories/process.py"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    file = tmp_path / "p.env"
    file.write_text("BACKUP_TO=\nBACKUP_PASSWORD_FILE=/keys/password\n")
    return file


def of(env_file: Path, url: str, **environ: str) -> Repository | None:
    return repository.of(env_file, {"BACKUP_TO": url, **environ})


# --- What an env file says -----------------------------------------------------------------------


def test_without_a_place_there_is_no_repository(env_file: Path) -> None:
    assert repository.of(ENV_FILE, {}) is None
    assert repository.of(env_file, {}) is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/mnt/backups", "directory"),
        ("/mnt/nas-2/wallets", "directory"),
        ("sftp:backup@nas.example:/srv/wallets", "sftp"),
        ("sftp:nas:wallets", "sftp"),
        ("sftp://backup@10.0.0.9:2222//srv/wallets", "sftp"),
        ("sftp://backup@[fd00::9]:2222//srv/wallets", "sftp"),
        ("s3:https://s3.example.com/wallets", "s3"),
        ("s3:http://10.0.0.9:9000/wallets/production", "s3"),
    ],
)
def test_each_kind_of_place_is_taken_as_restic_takes_it(
    env_file: Path, url: str, kind: str
) -> None:
    found = of(env_file, url, **KEYS)
    assert found
    assert (found.url, found.kind, found.password_file) == (url, kind, Path("/keys/password"))
    assert found.keys == (KEYS if kind == "s3" else {})


@pytest.mark.parametrize(
    "url",
    [
        "backups",
        "./backups",
        "/mnt/my backups",
        "/mnt/$HOME",
        "/mnt/'x'",
        "ftp://nas/x",
        "rest:https://nas/x",
        "sftp:nas",
        "sftp:-oProxyCommand=x:/y",
        "s3:s3.example.com/wallets",
        "s3:https://s3.example.com",
        "s3:https://key:s3cr3t@s3.example.com/wallets",
        "sftp:me:s3cr3t@nas:/x",
        "/mnt/backups\n/x",
    ],
)
def test_another_place_is_refused_in_a_line_without_what_may_be_a_password(
    env_file: Path, url: str
) -> None:
    with pytest.raises(Refusal, match="BACKUP_TO: expected a directory") as refused:
        of(env_file, url, **KEYS)
    assert "s3cr3t" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_servers_reach_no_directory_of_this_machine(env_file: Path) -> None:
    with pytest.raises(Refusal, match="expected sftp: or s3:, which each server reaches"):
        repository.of(env_file, {"BACKUP_TO": "/mnt/backups"}, is_elsewhere=True)
    to = {"BACKUP_TO": "sftp:nas:/x"}
    assert repository.of(env_file, to, is_elsewhere=True)


def test_a_key_in_the_file_that_git_tracks_is_refused_and_not_told(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ENV_FILE", env_file)
    env_file.write_text("".join(f"{name}={value}\n" for name, value in KEYS.items()))
    with pytest.raises(Refusal, match=r"AWS_ACCESS_KEY_ID: .* found it where git") as refused:
        of(env_file, "s3:https://s3.example.com/wallets", BACKUP_PASSWORD_FILE="/p")
    assert not any(secret in str(refused.value) for secret in KEYS.values())


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("value", ["", "a b"])
def test_a_key_that_lacks_is_named_and_none_is_told(env_file: Path, name: str, value: str) -> None:
    with pytest.raises(Refusal, match=f"{name}: expected a key of the S3 account") as refused:
        of(env_file, "s3:https://s3.example.com/wallets", **KEYS | {name: value})
    assert "a b" not in str(refused.value)


def test_a_repository_without_a_password_file_is_refused(env_file: Path) -> None:
    with pytest.raises(Refusal, match=r"BACKUP_PASSWORD_FILE: .* `make init-env` makes one"):
        of(env_file, "/mnt/backups", BACKUP_PASSWORD_FILE="")


def test_its_secrets_are_in_no_printed_repository_or_deployment(env_file: Path) -> None:
    found = of(env_file, "s3:https://s3.example.com/wallets", **KEYS)
    printed = repr(OURS.model_copy(update={"repository": found}))
    assert "s3.example.com" in printed
    assert "AKIA7" not in printed
    assert "s3cr3t" not in printed


def test_the_cluster_does_not_know_of_them(tmp_path: Path) -> None:
    named = ENV_FILE.read_text().replace("BACKUP_TO=", "BACKUP_TO=/mnt/backups")
    (tmp_path / "p.env").write_text(named)
    assert config.load(tmp_path / "p.env", {}) == config.load(ENV_FILE, {})


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (None, 0, "found No such file"),
        ("secret\n", 0o644, "mode 600.*found 644. Fix: chmod 600"),
        ("", 0o600, "in one line, found 0 lines"),
        ("one\ntwo\n", 0o600, "in one line, found 2 lines"),
        (b"\xff\xfe", 0o600, "found one that is no text"),
    ],
)
def test_a_password_file_that_does_not_serve_is_refused_and_not_told(
    env_file: Path, text: str | bytes | None, mode: int, said: str
) -> None:
    file = env_file.with_name("password")
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
    found = of(env_file, "/mnt/backups", BACKUP_PASSWORD_FILE=str(file))
    assert found
    with pytest.raises(Refusal, match=f"BACKUP_PASSWORD_FILE: expected .*{said}") as refused:
        found.environ()
    assert "secret" not in str(refused.value)


# --- How a host is told --------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["plain", "it's $HOME `x` \\n", " blanks ", "a=b", "ü"])
def test_what_a_host_reads_becomes_variables_as_it_stands(tmp_path: Path, value: str) -> None:
    (tmp_path / "restic").write_text("")
    (tmp_path / "restic").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", restic.told('printf %s "$RESTIC_PASSWORD"; cat; printf %s "$OTHER"')],
        input="\n".join([*restic.settings({"RESTIC_PASSWORD": value, "OTHER": "x"}), "more\n"]),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RESTIC_PASSWORD_FILE": "/another"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{value}x"  # and nothing reads on


def test_a_host_without_restic_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", restic.told("echo on")],
        input="A=b\n\n",
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused = restic.refused("/r", done.stderr, done.returncode, NAMED)
    assert str(refused).startswith("restic: expected it on PATH, found none. Fix: apt-get install")


def test_a_copy_that_fails_fails_what_stores_it(tmp_path: Path) -> None:
    (tmp_path / "restic").write_text("#!/bin/sh\ncat >/dev/null\n")
    (tmp_path / "restic").chmod(0o755)
    for copy, code in (("echo whole", 0), ("{ echo half; exit 7; }", 1)):
        script = f"set -eu\n{restic.store(copy, OURS, '20261124T000000Z', 0, str(tmp_path / 's'))}"
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        assert subprocess.run(["sh", "-c", script], env=environ, timeout=60).returncode == code


def test_a_repository_may_have_several_clusters_and_odd_names() -> None:
    odd = OURS.model_copy(update={"name": "a, b=c"})
    (tags,) = (word for word in restic.put(odd, "20261124T000000Z", 1) if "--tag" in word)
    assert tags.count(",") == 5
    assert "deployment=a%2C%20b%3Dc" in tags
    assert restic.tags_of(odd) != restic.tags_of(OURS)


# --- What it says --------------------------------------------------------------------------------


def _listed(*sets_: tuple[str, str], time: str = "2026-11-24T00:00:0") -> str:
    return json.dumps(
        [
            {
                "id": f"{number:064x}",
                "time": f"{time}{number}Z",
                "tags": ["wallet-service", f"set={name}", what],
            }
            for number, (name, what) in enumerate(sets_)
        ]
    )


def test_a_set_is_whole_with_its_manifest() -> None:
    found = restic.parse(
        _listed(("B", "replica=0"), ("B", "manifest"), ("A", "replica=0"), ("A", "manifest"))
    )
    assert found[0] == Snapshot(f"{0:064x}", "B", 0)
    assert restic.whole(found) == ["A", "B"]
    assert restic.whole(restic.parse(_listed(("C", "replica=0")))) == []


def test_what_others_have_stored_is_not_ours() -> None:
    assert restic.parse("null") == []
    assert restic.parse('[{"id": "1", "time": "1", "tags": null}]') == []
    assert restic.parse('[{"id": "1", "time": "1", "tags": ["wallet-service"]}]') == []


@pytest.mark.parametrize("listing", ["", "{}x", "7", '[{"tags": ["wallet-service", "manifest"]}]'])
def test_a_list_that_is_none_is_refused_in_a_line(listing: str) -> None:
    with pytest.raises(Refusal, match="restic: expected a list of snapshots") as refused:
        restic.parse(listing)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ('{"message_type":"status"}\n{"message_type":"summary","data_added":297}', 297),
        ('{"message_type":"summary","data_added":297,"data_added_packed":345}\n', 297),
    ],
)
def test_what_was_added_is_read_of_each_release(said: str, size: int) -> None:
    assert restic.added(said) == size


URL = "sftp:nas:/x"
#: What 0.14 and 0.18 have said, and with which exit code → what a person is told.
SAID: list[tuple[int, str, str]] = [
    (1, "Fatal: wrong password or no key found", "BACKUP_PASSWORD_FILE: expected the password"),
    (12, "Fatal: wrong password or no key found", "BACKUP_PASSWORD_FILE: expected the password"),
    (
        1,
        "Fatal: unable to open config file: stat r/config: no such file or directory\n"
        "Is there a repository at the following location?\nr",
        "BACKUP_TO: expected a repository at sftp:nas:/x, found none. Fix: mount it, if it is one",
    ),
    (
        10,
        "Fatal: repository does not exist: unable to open config file: stat r/config: no such file",
        "BACKUP_TO: expected a repository",
    ),
    (
        1,
        "Fatal: unable to open config file: Stat: The specified bucket does not exist\nIs there",
        "BACKUP_TO: expected a repository",
    ),
    (
        1,
        "unable to create lock in backend: repository is already locked exclusively by PID 11428 "
        "on vm by root (UID 0, GID 0)\nlock was created at 2026-11-29 10:11:14 (3.23s ago)\n"
        "storage ID 0942c7b6\nthe `unlock` command can be used to remove stale locks",
        "found a lock of PID 11428 on vm by root, 3.23s old. Fix: wait for its end; if that "
        f"process is gone: make restic {NAMED} RUN=unlock",
    ),
    (
        11,
        "repo already locked, waiting up to 0s for the lock\nunable to create lock in backend: "
        "repository is already locked by PID 15507 on vm by root (UID 0, GID 0)\nlock was created "
        "at 2026-11-29 10:11:51 (3.6s ago)\nstorage ID f2fa9793",
        "found a lock of PID 15507 on vm by root, 3.6s old",
    ),
    (
        2,
        "cannot dump file: decrypting blob d3cb7e03 failed: ciphertext verification failed\n"
        "not the whole file",
        "expected what was stored, found damage: cannot dump file: decrypting blob d3cb7e03",
    ),
    (
        2,
        'loading tree for snapshot "5418cac7" failed: decrypting blob d2b4eb50 failed: ciphertext '
        "verification failed\nnot the whole file",
        'found damage: loading tree for snapshot "5418cac7" failed',
    ),
    (
        1,
        "Fatal: cannot dump file: decrypting blob <data/5f36> from ff931 failed: ciphertext "
        "verification failed",
        "expected what was stored, found damage: cannot dump file",
    ),
    (1, "Fatal: load <index/89928f525d>: invalid data returned", "found damage: load <index/8992"),
    (1, "LoadRaw(<index/16ff7ed245>): invalid data returned", "found damage: LoadRaw"),
    (
        1,
        'Save(<data/baa5ec8138>) failed: write x-tmp: no space left on device\n{"message_type":'
        '"exit_error","code":1,"message":"Fatal: unable to save snapshot: write x-tmp: no space '
        'left on device"}',
        "expected room for the backup, found unable to save snapshot: write x-tmp: no space left",
    ),
    (
        1,
        "subprocess ssh: ssh: connect to host nas port 22: Connection refused\nFatal: unable to "
        "open repository at sftp:nas:/x: unable to start the sftp session, error: EOF",
        "expected to reach the repository, found ssh: connect to host nas port 22: Connection ref",
    ),
    (
        124,
        "Stat(<config/>) returned error, retrying after 43.4s: Stat: Get "
        '"http://10.0.0.9/b/?location=": dial tcp 10.0.0.9:80: connect: connection refused\n'
        "signal terminated received, cleaning up\nFatal: unable to open config file: context "
        "canceled\nIs there a repository at the following location?\ns3:http://10.0.0.9/b",
        'expected to reach the repository, found Stat: Get "http://10.0.0.9/b/?location=": dial',
    ),
    (124, "", "expected to reach the repository, found no answer within 60 s"),
    (127, "", "restic: expected it on PATH, found none"),
    (1, "another repository", "expected to reach the repository, found another repository"),
]


@pytest.mark.parametrize(("code", "said", "told"), SAID)
def test_what_it_has_failed_with_is_told_in_a_line(code: int, said: str, told: str) -> None:
    refused = str(restic.refused(URL, said, code, NAMED))
    assert told in refused
    assert " Fix: " in refused
    assert "\n" not in refused


# --- Sets ----------------------------------------------------------------------------------------


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A deployment with a repository that has these sets; what restic is called with."""
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))
    named = Repository(url="/r", kind="directory", password_file=Path("/p"), keys={})
    deployment = OURS.model_copy(update={"repository": named})
    calls: list[tuple[str, ...]] = []

    def made(*sets_: tuple[str, str]) -> tuple[Deployment, list[tuple[str, ...]]]:
        def run(_: Deployment, *arguments: str, **__: object) -> str:
            calls.append(arguments)
            return _listed(*sets_)

        monkeypatch.setattr(asked, "run", run)
        return deployment, calls

    return made


def test_a_sets_manifest_goes_before_its_files_then_the_rest_is_checked(there: Any) -> None:
    """Interrupted anywhere between, there is no set that looks whole."""
    one, two = "20261124T000000Z", "20261125T000000Z"
    deployment, calls = there((one, "replica=0"), (one, "manifest"), (two, "manifest"))
    asked.drop(deployment, [one])
    assert calls[1:] == [("forget", f"{1:064x}", f"{0:064x}"), ("prune",), ("check",)]


def test_where_nothing_goes_nothing_is_pruned(there: Any) -> None:
    deployment, calls = there(("20261124T000000Z", "manifest"), ("29991124T000000Z", "replica=0"))
    asked.drop(deployment, [])
    assert [call[0] for call in calls] == ["snapshots"]


def test_what_a_killed_backup_has_left_long_ago_goes_too(there: Any) -> None:
    old, under_way = "20201124T000000Z", "29991124T000000Z"
    deployment, calls = there((old, "replica=0"), (under_way, "replica=0"))
    asked.drop(deployment, [])
    assert calls[1] == ("forget", f"{0:064x}")


def test_a_name_is_found_here_or_there_and_nowhere_else(there: Any, tmp_path: Path) -> None:
    deployment, _ = there(("20261124T000000Z", "manifest"))
    with pytest.raises(Refusal, match=r"or in /r, found none that is called 20200101T000000Z"):
        asked.chosen("20200101T000000Z", deployment)
    assert asked.chosen(str(tmp_path), deployment) == tmp_path


def test_a_deployment_without_a_repository_says_where_to_name_one() -> None:
    with pytest.raises(Refusal, match="BACKUP_TO: expected a repository, found nothing"):
        asked.run(OURS, "snapshots")


@pytest.mark.parametrize(
    ("free_mib", "known_mib", "is_enough"),
    [(100, None, True), (99, None, False), (99, 40, True), (79, 40, False), (None, None, True)],
)
def test_the_room_there_is_for_all_files_or_twice_the_largest_backup(
    there: Any,
    monkeypatch: pytest.MonkeyPatch,
    free_mib: int | None,
    known_mib: int | None,
    *,
    is_enough: bool,
) -> None:
    deployment, _ = there()
    known = {Path("x"): _Known(known_mib << 20)} if known_mib else {}
    monkeypatch.setattr(sets, "of_cluster", lambda *_: known)
    monkeypatch.setattr(asked, "_free", lambda _: None if free_mib is None else free_mib << 20)
    if is_enough:
        asked.require_room(deployment, 100 << 20)
    else:
        with pytest.raises(Refusal, match=rf"/r: expected \d+ MiB free .*, found {free_mib} MiB"):
            asked.require_room(deployment, 100 << 20)


class _Known:
    is_stored = True

    def __init__(self, size: int) -> None:
        self.size = size


def test_a_listing_tells_where_each_set_is(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, _ = there(("A", "manifest"), ("B", "manifest"))
    here = {Path("C"): _Known(1), Path("B"): _Known(1)}
    monkeypatch.setattr(sets, "of_cluster", lambda *_: here)
    found = {name: where for name, (where, _) in listing.listed(deployment).items()}
    assert found == {"A": listing.THERE, "B": listing.THERE, "C": listing.GONE}
