"""A file system that cannot serve a ledger is refused before anything is written to it."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.checks import observe, rules
from cluster.checks.observe import OF_NO_ACCOUNT
from cluster.refusal import Refusal
from cluster.runtimes.process import Process
from tests.clusters import Sandbox

MOUNTED = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /home rw - nfs4 server:/export/home rw
31 30 0:31 / /home/me/local\\040disk rw shared:7 master:1 - xfs /dev/vdb rw
32 22 0:32 / /mnt/c rw - 9p drvfs rw
33 22 0:33 / /over rw - nfs4 server:/old rw
34 22 0:34 / /over rw - ext4 /dev/vdc rw
"""
GENUINE = "inventories/process.py"


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "mountinfo"
    told.write_text(MOUNTED)
    monkeypatch.setattr(observe, "MOUNTS", told)


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/home/me/wallet", "nfs4"),
        ("/home/me/local disk/x", "xfs"),
        ("/homes", "ext4"),
        ("/mnt/c/wallet", "9p"),
        ("/over", "ext4"),
    ],
)
def test_the_mount_that_holds_a_directory_is_found(
    mounted: None, directory: str, kind: str
) -> None:
    assert observe.filesystem_of(Path(directory)) == kind


def test_without_that_file_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "MOUNTS", Path("/nonexistent/mountinfo"))
    assert observe.filesystem_of(Path("/")) is None


def test_this_machine_s_own_is_known() -> None:
    assert observe.filesystem_of(Path("/proc/self")) == "proc"


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "drvfs", "vboxsf", "fuse.sshfs", "fuseblk"]
)
def test_a_ledger_is_not_kept_where_another_machine_keeps_it(tmp_path: Path, kind: str) -> None:
    seen = {0: replace(OF_NO_ACCOUNT, directory="/home/me", filesystem=kind, disk_bytes=2**40)}
    genuine = Sandbox(GENUINE, tmp_path, (1, 2, 3)).deployment
    with pytest.raises(Refusal, match=rf"disk: expected /home/me on a disk .* found {kind}, which"):
        rules.check(genuine, seen, only=["disk"])
    rules.check(Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3)).deployment, seen, ["disk"])


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fusectl"])
def test_a_ledger_is_kept_on_a_disk_of_this_machine(tmp_path: Path, kind: str) -> None:
    seen = {0: replace(OF_NO_ACCOUNT, directory="/home/me", filesystem=kind, disk_bytes=2**40)}
    rules.check(Sandbox(GENUINE, tmp_path, (1, 2, 3)).deployment, seen, only=["disk"])


def test_where_no_socket_can_be_made_nothing_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(socket, "socket", Socket)
    wanted = "expected a file system that can hold supervisor's socket"
    with tempfile.TemporaryDirectory(prefix="ws-") as short:
        runtime = Process(Sandbox("inventories/emulator.py", Path(short), (1, 2, 3)).deployment)
        with pytest.raises(Refusal, match=wanted):
            runtime.check_place()
        assert not list(Path(short).iterdir())


def test_a_genuine_file_system_without_sockets_is_refused(tmp_path: Path) -> None:
    """sysfs: root may write there, and the kernel makes no socket."""
    made = Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3)).deployment
    runtime = Process(made.model_copy(update={"state_dir": Path("/sys/ws")}))
    wanted = "hold supervisor's socket" if os.geteuid() == 0 else "that can be written"
    with pytest.raises(Refusal, match=f"DATA_DIR: expected .*{wanted}"):
        runtime.check_place()
