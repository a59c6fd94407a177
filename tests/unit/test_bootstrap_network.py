"""The environment is built through any network that pip has been told of; secrets stay secret."""

from __future__ import annotations

import datetime
import hashlib
import io
import shutil
import subprocess
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster import REPOSITORY
from tests.unit.test_bootstrap import bootstrap
from tests.web import serving

SECRET = "s3c/r3t"
LOGIN = f"me@corp:{SECRET}"
#: As a URL has it.
QUOTED = "me%40corp:s3c%2Fr3t@"
UV_WHEEL, UV_SUM = bootstrap.WHEELS["Linux", "x86_64"]
UV = shutil.which(REPOSITORY / ".uv" / bootstrap.UV_VERSION / "uv") or shutil.which("uv")

pytestmark = pytest.mark.skipif(UV is None, reason="this environment was built without uv")


def archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, text in files.items():
            opened.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


#: A uv that is the real one: what is fetched must be small.
UV_BODY = archive({f"uv-{bootstrap.UV_VERSION}.data/scripts/uv": f'#!/bin/sh\nexec "{UV}" "$@"\n'})
TINY_NAME = "tiny-1.0-py3-none-any.whl"


def tiny(source: str) -> bytes:
    return archive(
        {
            "tiny.py": source,
            "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
            "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
            "tiny-1.0.dist-info/RECORD": "tiny.py,,\n",
        }
    )


TINY = tiny("HERE = True\n")
FILES = {UV_WHEEL: UV_BODY, TINY_NAME: TINY}
INDEX = {
    "/simple/uv/": f'<a href="../../f/{UV_WHEEL}#sha256=0">{UV_WHEEL}</a>'.encode(),
    "/simple/tiny/": f'<a href="../../f/{TINY_NAME}">{TINY_NAME}</a>'.encode(),
    **{f"/f/{name}": body for name, body in FILES.items()},
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one package, which uv.lock has from PyPI, in a path with a space."""
    root = tmp_path / "a b" / "wallet service"
    shutil.copytree(
        REPOSITORY / "files", root / "files", ignore=shutil.ignore_patterns("[!bp]*", "backup")
    )
    program = root / "files/bootstrap.py"
    pinned = hashlib.sha256(UV_BODY).hexdigest()
    sums = {known for _, known in bootstrap.WHEELS.values()}
    for known in sums:
        program.write_text(program.read_text().replace(known, pinned))
    (root / "pyproject.toml").write_text(
        textwrap.dedent("""\
            [project]
            name = "small"
            version = "1"
            requires-python = ">=3.11"
            [dependency-groups]
            dev = ["tiny==1.0"]
            [tool.uv]
            package = false
        """)
    )
    (root / "uv.lock").write_text(
        textwrap.dedent(f"""\
            version = 1
            revision = 3
            requires-python = ">=3.11"
            [[package]]
            name = "small"
            version = "1"
            source = {{ virtual = "." }}
            [package.dev-dependencies]
            dev = [{{ name = "tiny" }}]
            [package.metadata]
            [package.metadata.requires-dev]
            dev = [{{ name = "tiny", specifier = "==1.0" }}]
            [[package]]
            name = "tiny"
            version = "1.0"
            source = {{ registry = "https://pypi.org/simple" }}
            wheels = [
                {{ url = "https://files.pythonhosted.org/packages/tiny-1.0-py3-none-any.whl", \
hash = "sha256:{hashlib.sha256(TINY).hexdigest()}" }},
            ]
        """)
    )
    return root


def build(
    checkout: Path, environ: Mapping[str, str], python: str = "python3"
) -> subprocess.CompletedProcess[str]:
    home = checkout.parent / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [python, checkout / "files/bootstrap.py"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "UV_HTTP_RETRIES": "0", **environ},
        capture_output=True,
        text=True,
        timeout=600,
    )


def is_built(checkout: Path) -> bool:
    command = [str(checkout / ".venv/bin/python"), "-c", "import tiny; assert tiny.HERE"]
    return subprocess.run(command, timeout=30).returncode == 0


def assert_secret(checkout: Path, done: subprocess.CompletedProcess[str]) -> None:
    """It is shown nowhere, and stays in no file of the checkout."""
    kept = [f for f in checkout.rglob("*") if f.is_file() and not f.is_symlink()]
    texts = [done.stdout, done.stderr, *(f.read_bytes().decode("latin-1") for f in kept)]
    for secret in (SECRET, "s3c%2Fr3t", "s3c"):
        assert not [text[:200] for text in texts if secret in text]


def assert_refused(checkout: Path, done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert_secret(checkout, done)


def test_an_index_with_a_password_serves(checkout: Path) -> None:
    with serving(INDEX, login=LOGIN) as url:
        index = {"PIP_INDEX_URL": url.replace("//", f"//{QUOTED}") + "/simple/"}
        done, again = build(checkout, index), build(checkout, index)
    assert done.returncode == again.returncode == 0, done.stderr
    assert is_built(checkout)
    assert_secret(checkout, done)


def pythons() -> Iterator[str]:
    """One of each Python from 3.8 on that this machine has, on PATH or where pyenv keeps them."""
    for minor in range(8, 16):
        kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"))
        if found := shutil.which(kept[0] if kept else f"python3.{minor}"):
            yield found


@pytest.mark.parametrize("python", list(pythons()))
def test_any_python_that_a_machine_calls_python3_serves(checkout: Path, python: str) -> None:
    with serving(INDEX, login=LOGIN) as url:
        index = {"PIP_INDEX_URL": url.replace("//", f"//{QUOTED}") + "/simple/"}
        done = build(checkout, {**index, "PYTHONWARNINGS": "error"}, python)
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


def test_a_password_in_netrc_and_an_index_in_pip_s_file_serve(checkout: Path) -> None:
    home = checkout.parent / "home"
    (home / ".config/pip").mkdir(parents=True)
    netrc = home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login me@corp password {SECRET}\n")
    netrc.chmod(0o600)
    with serving(INDEX, login=LOGIN) as url:
        (home / ".config/pip/pip.conf").write_text(f"[global]\nindex-url = {url}/simple\n")
        done = build(checkout, {})
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


def test_an_index_behind_another_one_serves(checkout: Path) -> None:
    """pip's extra index: the first one does not have everything."""
    with serving(INDEX, login=LOGIN) as url, serving({}) as first:
        address = url.replace("//", f"//{QUOTED}")
        extra = {"PIP_INDEX_URL": f"{first}/simple", "PIP_EXTRA_INDEX_URL": f"{address}/simple"}
        done = build(checkout, extra)
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


@pytest.mark.parametrize("variable", ["PIP_PROXY", "ALL_PROXY"])
def test_a_proxy_serves(checkout: Path, variable: str) -> None:
    with serving(INDEX) as proxy:
        index = "http://packages.company.invalid/simple"
        done = build(checkout, {"PIP_INDEX_URL": index, variable: proxy})
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate of 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "company")])
    today = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - datetime.timedelta(1))
    builder = builder.not_valid_after(today + datetime.timedelta(1)).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
    )
    pem = serialization.Encoding.PEM
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path / "company.pem"
    file.write_bytes(key.private_bytes(pem, form, secret))
    file.write_bytes(file.read_bytes() + builder.sign(key, hashes.SHA256()).public_bytes(pem))
    return file


@pytest.mark.parametrize("variable", ["PIP_CERT", "REQUESTS_CA_BUNDLE"])
def test_a_private_authority_serves(checkout: Path, certificate: Path, variable: str) -> None:
    with serving(INDEX, login=LOGIN, certificate=certificate) as url:
        address = url.replace("//", f"//{QUOTED}")
        index = {"PIP_INDEX_URL": f"{address}/simple", "PIP_CONFIG_FILE": "/dev/null"}
        done = build(checkout, {**index, variable: str(certificate)})
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


def test_a_trusted_host_serves_and_an_unknown_authority_is_named(
    checkout: Path, certificate: Path
) -> None:
    with serving(INDEX, certificate=certificate) as url:
        index = {"PIP_INDEX_URL": f"{url}/simple"}
        unknown = build(checkout, index)
        done = build(checkout, {**index, "PIP_TRUSTED_HOST": "127.0.0.1"})
    assert_refused(checkout, unknown, "SSL_CERT_FILE=FILE")
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


def test_a_folder_of_wheels_serves_without_an_index(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wheels of ours"
    folder.mkdir()
    for name, body in FILES.items():
        (folder / name).write_bytes(body)
    # pip separates with spaces, and has this form for an address with one.
    done = build(checkout, {"PIP_FIND_LINKS": folder.as_uri(), "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stderr
    assert is_built(checkout)


@pytest.mark.parametrize(
    ("login", "says"),
    [("me:s3cold", "USER:PASSWORD@HOST"), ("me@corp:s3c/old", "found another text")],
    ids=["wrong", "not-quoted"],
)
def test_a_wrong_password_is_told_in_a_line_without_it(
    checkout: Path, login: str, says: str
) -> None:
    with serving(INDEX, login=LOGIN) as url:
        done = build(checkout, {"PIP_INDEX_URL": url.replace("//", f"//{login}@") + "/simple"})
    assert_refused(checkout, done, says)


def test_a_password_that_expires_later_is_not_shown_either(checkout: Path) -> None:
    with serving(INDEX, login=LOGIN) as url:
        index = {"PIP_INDEX_URL": url.replace("//", f"//{QUOTED}") + "/simple"}
        assert build(checkout, index).returncode == 0
    shutil.rmtree(checkout / ".venv")
    shutil.rmtree(checkout.parent / "home")
    with serving(INDEX, login="me:new") as url:
        done = build(checkout, {"PIP_INDEX_URL": url.replace("//", f"//{QUOTED}") + "/simple"})
    assert_refused(checkout, done, "UV_DEFAULT_INDEX=URL")


def test_another_file_of_the_same_name_is_refused(checkout: Path) -> None:
    other = {**INDEX, f"/f/{TINY_NAME}": tiny("HERE = 1\n")}
    with serving(other) as url:
        done = build(checkout, {"PIP_INDEX_URL": f"{url}/simple"})
    assert_refused(checkout, done, "UV_DEFAULT_INDEX=URL")
    assert "ash mismatch" in done.stderr


def test_a_file_that_pip_cannot_read_is_named_and_not_quoted(checkout: Path) -> None:
    broken = checkout.parent / "pip.conf"
    broken.write_text(f"index-url https://me:{SECRET}@host/simple\n")
    done = build(checkout, {"PIP_CONFIG_FILE": str(broken)})
    assert_refused(checkout, done, f"{broken}: expected a file that pip can read")
