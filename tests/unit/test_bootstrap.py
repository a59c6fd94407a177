"""The environment builds itself from a bare python3, and only from the pinned, checked uv."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import subprocess
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from cluster import REPOSITORY
from tests.web import serving

NAME = "uv-x.whl"


def load_bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", REPOSITORY / "files/bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "files")  # as Python does for a program
        spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()
pip_network: ModuleType = bootstrap.pip_network
NO_FILES = {"PIP_CONFIG_FILE": "/dev/null"}


def at(index: str) -> dict[str, str]:
    net: dict[str, str] = pip_network.network({**NO_FILES, "PIP_INDEX_URL": index})
    return net


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"uv-{bootstrap.UV_VERSION}.data/scripts/uv", "#!/bin/sh\necho uv here\n")
    return buffer.getvalue()


def index(body: bytes) -> dict[str, bytes]:
    links = f'<a href="../files/other.whl">o</a><a href="../files/{NAME}#sha256=00">{NAME}</a>'
    return {"/simple/uv/": links.encode(), f"/simple/files/{NAME}": body}


def test_the_right_wheel_is_found_on_the_index_and_its_uv_runs(tmp_path: Path) -> None:
    with serving(index(wheel())) as url:
        body = bootstrap.download_wheel(
            NAME, hashlib.sha256(wheel()).hexdigest(), at(f"{url}/simple")
        )
    target = tmp_path / "deep" / "uv"
    bootstrap.install_uv(body, target)
    assert subprocess.check_output([target], text=True) == "uv here\n"


@pytest.mark.parametrize(
    ("cut_after", "says"), [(None, "expected sha256"), (10, "expected")], ids=["wrong", "cut"]
)
def test_a_wrong_or_cut_wheel_is_refused(cut_after: int | None, says: str) -> None:
    pages = index(wheel())
    if cut_after is not None:
        pages[f"/simple/files/{NAME}"] = wheel()[:cut_after]
    with serving(pages) as url, pytest.raises(bootstrap.BootstrapError, match=says):
        bootstrap.download_wheel(NAME, "0" * 64, at(f"{url}/simple"))


def test_an_index_without_the_wheel_is_named(tmp_path: Path) -> None:
    with (
        serving({"/simple/uv/": b"<html></html>"}) as url,
        pytest.raises(bootstrap.BootstrapError, match="expected a link to uv-x"),
    ):
        bootstrap.download_wheel(NAME, "0" * 64, at(f"{url}/simple"))


def test_an_unreachable_index_is_named() -> None:
    with pytest.raises(bootstrap.BootstrapError, match="check the network"):
        bootstrap.download_wheel(NAME, "0" * 64, at("http://127.0.0.1:1/simple"))


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_the_user_s_index_is_used(variable: str) -> None:
    net = pip_network.network({**NO_FILES, variable: "https://mirror/simple/"})
    assert pip_network.pages("uv", net) == ["https://mirror/simple/uv/"]
    assert pip_network.is_elsewhere(net)


def test_without_one_it_is_pypi() -> None:
    net = pip_network.network(NO_FILES)
    assert pip_network.pages("uv", net) == ["https://pypi.org/simple/uv/"]
    assert not pip_network.is_elsewhere(net)


@pytest.mark.parametrize(
    ("system", "machine"),
    [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"), ("Darwin", "arm64")],
)
def test_every_common_platform_has_a_pinned_wheel(system: str, machine: str) -> None:
    name, sha256 = bootstrap.wheel_for(system, machine)
    assert name.startswith(f"uv-{bootstrap.UV_VERSION}-")
    assert len(bytes.fromhex(sha256)) == 32


def test_another_platform_is_told_what_to_do() -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"install uv .* yourself"):
        bootstrap.wheel_for("Plan9", "mips")


def test_it_needs_nothing_but_the_standard_library() -> None:
    """-S: no site-packages at all; importing it is then all it can do."""
    command = ["python3", "-E", "-s", "-S", "-c", "import bootstrap"]
    subprocess.run(command, cwd=REPOSITORY / "files", check=True, timeout=30)


@pytest.mark.parametrize("name", ["bootstrap.py", "pip_network.py"])
def test_python_3_8_can_read_it(name: str) -> None:
    ast.parse((REPOSITORY / "files" / name).read_text(), feature_version=(3, 8))


def test_a_checkout_with_the_line_ends_of_windows_is_told_how_to_mend_it(tmp_path: Path) -> None:
    """git makes none, by .gitattributes; a copy from a folder of Windows may be one."""
    for name in ("bootstrap.py", "pip_network.py"):
        body = (REPOSITORY / "files" / name).read_bytes().replace(b"\n", b"\r\n")
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_bytes(body)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=30)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True, timeout=30)
    command = ["python3", str(tmp_path / "files/bootstrap.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    fix = line.partition("Fix: ")[2]
    subprocess.run(fix, shell=True, cwd=tmp_path, check=True, timeout=30)
    assert b"\r" not in (tmp_path / "files/bootstrap.py").read_bytes()


def test_git_gives_every_text_the_line_ends_of_unix() -> None:
    told = subprocess.check_output(["git", "ls-files", "--eol"], cwd=REPOSITORY, text=True)
    assert [line for line in told.splitlines() if "eol=lf" not in line] == []


def test_uv_is_of_the_series_that_builds_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (requirement,) = project["build-system"]["requires"]
    series = ".".join(bootstrap.UV_VERSION.split(".")[:2])
    assert requirement.startswith(f"uv_build>={series},")
