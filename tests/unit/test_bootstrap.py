"""The environment builds itself from a bare python3, and only from the pinned, checked uv."""

from __future__ import annotations

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
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


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
        body = bootstrap.download_wheel(f"{url}/simple", NAME, hashlib.sha256(wheel()).hexdigest())
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
        bootstrap.download_wheel(f"{url}/simple", NAME, "0" * 64)


def test_an_index_without_the_wheel_is_named(tmp_path: Path) -> None:
    with (
        serving({"/simple/uv/": b"<html></html>"}) as url,
        pytest.raises(bootstrap.BootstrapError, match="expected a link to uv-x"),
    ):
        bootstrap.download_wheel(f"{url}/simple", NAME, "0" * 64)


def test_an_unreachable_index_is_named() -> None:
    with pytest.raises(bootstrap.BootstrapError, match="check the network"):
        bootstrap.download_wheel("http://127.0.0.1:1/simple", NAME, "0" * 64)


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_the_user_s_index_is_used(variable: str) -> None:
    assert bootstrap.index_url({variable: "https://mirror/simple/"}) == "https://mirror/simple"


def test_without_one_it_is_pypi() -> None:
    assert bootstrap.index_url({}) == bootstrap.DEFAULT_INDEX


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
    """-I -S: no site-packages at all; importing it is then all it can do."""
    command = ["python3", "-I", "-S", "-c", "import runpy, sys; runpy.run_path(sys.argv[1])"]
    subprocess.run([*command, REPOSITORY / "files/bootstrap.py"], check=True, timeout=30)


def test_uv_is_of_the_series_that_builds_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (requirement,) = project["build-system"]["requires"]
    series = ".".join(bootstrap.UV_VERSION.split(".")[:2])
    assert requirement.startswith(f"uv_build>={series},")
