"""The image on a base like Alpine: BusyBox for a shell, and `apk` for packages.

No Alpine image can be had without a registry, so this one is put together here. BusyBox is
the real one; `apk` is a script that notes what it is asked for, and brings Debian's programs. So it
shows that the branch for Alpine is taken, what it asks for, and that every later line is one that
BusyBox understands; not that Alpine's packages are what they are called.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.runtimes.image import DOCKERFILE
from tests.docker.sandbox import docker

BUSYBOX = shutil.which("busybox")
pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(BUSYBOX is None, reason="no busybox: apt-get install busybox-static"),
]
BASE, IMAGE = (f"ws-test-{os.getpid()}-alpine{part}:1" for part in ("-base", ""))
_LIBRARIES = f"/usr/lib/{platform.machine()}-linux-gnu"
_DOCKERFILE = f"""
FROM {{debian}} AS debian
FROM scratch
COPY busybox /bin/busybox
COPY --chmod=755 apk /sbin/apk
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY --from=debian {_LIBRARIES} /lib/{platform.machine()}-linux-gnu
COPY --from=debian /lib64 /lib64
COPY --from=debian /usr/sbin/setcap /usr/sbin/getcap /usr/bin/nc.openbsd /usr/bin/ping /packages/
RUN mkdir -p /usr/sbin /usr/bin /tmp /etc && echo root:x:0:0:root:/:/bin/sh >/etc/passwd && \\
    echo root:x:0: >/etc/group && cp /bin/busybox /tigerbeetle && cp /bin/busybox /bin/bbsuid && \\
    chmod 4755 /bin/bbsuid && mv /packages/nc.openbsd /packages/nc
"""
_APK = """#!/bin/sh
echo "$@" >>/apk.log
cp /packages/* /usr/sbin/
"""


def build(directory: Path, base: str, image: str) -> None:
    """Our Dockerfile on ``base``, without a network."""
    done = docker(
        "build",
        "--network=none",
        "--no-cache",
        f"--build-arg=BASE={base}",
        "--build-arg=RELEASE=0.0.1",
        f"--tag={image}",
        "--file",
        str(DOCKERFILE),
        str(directory),
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, emulator_image: str) -> Iterator[str]:
    """Our image on a base like Alpine."""
    directory = tmp_path_factory.mktemp("alpine")
    shutil.copy(str(BUSYBOX), directory / "busybox")
    (directory / "apk").write_text(_APK)
    (directory / "Dockerfile").write_text(_DOCKERFILE.format(debian=emulator_image))
    done = docker("build", "--network=none", f"--tag={BASE}", str(directory))
    assert done.returncode == 0, done.stderr[-3000:]
    try:
        build(directory, BASE, IMAGE)
        yield IMAGE
    finally:
        docker("rmi", "--force", IMAGE, BASE)


def inside(image: str, script: str) -> str:
    """What a shell line says there, as the image's own user."""
    options = ["--rm", "--network=none", "--entrypoint=sh"]
    done = docker("run", *options, image, "-c", script)
    return done.stdout + done.stderr


def test_it_asks_apk_for_what_alpine_calls_these_packages(built: str) -> None:
    assert inside(built, "cat /apk.log") == "add --no-cache netcat-openbsd iputils-ping libcap\n"


def test_the_server_has_its_capability(built: str) -> None:
    assert "cap_ipc_lock=ep" in inside(built, "getcap /tigerbeetle")


def test_no_program_gains_privileges(built: str) -> None:
    assert inside(built, "find / -xdev -type f -perm /6000 2>/dev/null") == ""
    assert inside(built, "ls -l /bin/bbsuid").startswith("-rwxr-xr-x")


def test_the_data_directory_is_the_user_s_alone(built: str) -> None:
    assert inside(built, "stat -c '%u %g %a' /data; id -u") == "10001 10001 700\n10001\n"


def test_the_health_check_s_words_are_those_that_status_shows(built: str) -> None:
    """By its path: Debian's BusyBox would take its own, which Alpine's does not."""
    check = "/usr/sbin/nc -zv 127.0.0.1 3000"
    listening = f"busybox nc -l -p 3000 & until {check}; do sleep 0.1; done"
    assert "Connection to 127.0.0.1 3000 port [tcp/*] succeeded!" in inside(built, listening)


def test_a_base_that_has_all_of_it_asks_apk_for_nothing(built: str, tmp_path: Path) -> None:
    again = f"ws-test-{os.getpid()}-alpine-again:1"
    build(tmp_path, built, again)
    try:
        assert inside(again, "wc -l </apk.log") == "1\n"
    finally:
        docker("rmi", "--force", again)
