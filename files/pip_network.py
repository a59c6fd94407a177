"""The network that this machine's pip has been told of: indexes, proxy, certificates, passwords.

Read as pip reads it, from its files and then PIP_* variables, and said in uv's words; UV_*
variables win. For a bare Python 3.8, so the standard library alone. No message shows a password.
"""

from __future__ import annotations

import configparser
import html
import netrc
import os
import re
import ssl
import sys
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

#: The index whose addresses uv.lock has.
LOCKED_INDEX = "https://pypi.org/simple"
#: Where systems keep the certificates they trust; a Python built elsewhere may look at none.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
#: What says to uv where packages are.
INDEX_VARIABLES = {
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
}
TIMEOUT_S = 60


class BootstrapError(Exception):
    """Why the environment could not be built, in one line with the fix."""


def pip_files(environ: dict[str, str]) -> list[Path]:
    """pip's configuration files, weakest first, in the order of its own documentation."""
    if environ.get("PIP_CONFIG_FILE") == os.devnull:
        return []
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() fails where there is none
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    return [
        *(Path(directory, "pip/pip.conf") for directory in shared.split(os.pathsep)),
        Path("/Library/Application Support/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        user / "pip/pip.conf",
        home / "Library/Application Support/pip/pip.conf",
        Path(sys.prefix, "pip.conf"),
        *map(Path, filter(None, [environ.get("PIP_CONFIG_FILE")])),
    ]


def pip_options(environ: dict[str, str]) -> dict[str, str]:
    """What pip would use: option -> value, from its files and then its variables."""
    options: dict[str, str] = {}
    for file in pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # either would quote the line
            raise BootstrapError(
                f"{file}: expected a file that pip can read, found another. "
                "Fix: correct it (`pip config debug` tells), or set PIP_CONFIG_FILE=/dev/null."
            ) from None
        for section in filter(parser.has_section, ("global", "download", "install")):
            options.update({k.replace("_", "-"): v for k, v in parser.items(section)})
    told = {k[4:].lower().replace("_", "-"): v for k, v in environ.items() if k[:4] == "PIP_" and v}
    return {**options, **told}


def network(environ: dict[str, str]) -> dict[str, str]:
    """``environ`` with what pip and the usual variables say of the network, in uv's words."""
    pip = pip_options(environ)
    proxy = pip.get("proxy") or environ.get("ALL_PROXY") or environ.get("all_proxy") or ""
    said = {
        "UV_DEFAULT_INDEX": environ.get("UV_INDEX_URL") or pip.get("index-url") or LOCKED_INDEX,
        "UV_INDEX": environ.get("UV_EXTRA_INDEX_URL") or pip.get("extra-index-url"),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": pip.get("trusted-host"),
        "PIP_NO_INDEX": pip.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        "UV_KEYRING_PROVIDER": pip.get("keyring-provider") == "subprocess" and "subprocess",
        "UV_SYSTEM_CERTS": "true",
        "SSL_CERT_FILE": environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"),
        "SSL_CLIENT_CERT": pip.get("client-cert"),
    }
    for name in ("http_proxy", "https_proxy"):
        if proxy and not environ.get(name.upper()):
            said[name] = proxy if "://" in proxy else f"http://{proxy}"
    given = {name: value for name, value in environ.items() if value and name != "PIP_NO_INDEX"}
    if pip.get("cert") and not (environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")):
        given["SSL_CERT_FILE"] = pip["cert"]  # pip's index: with pip's certificate
    return {**{name: str(value) for name, value in said.items() if value}, **given}


def is_elsewhere(net: dict[str, str]) -> bool:
    """Packages come from another index than the one that uv.lock has the addresses of."""
    return bool(net.get("PIP_NO_INDEX")) or net["UV_DEFAULT_INDEX"].rstrip("/") != LOCKED_INDEX


def without_secret(url: str) -> str:
    """The URL without its user and password: as it may be shown, and be asked for."""
    scheme, mark, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path


def pages(package: str, net: dict[str, str]) -> list[str]:
    """Where files of a package may be listed, with passwords. Raises BootstrapError."""
    named = [] if net.get("PIP_NO_INDEX") else [net["UV_DEFAULT_INDEX"]]
    named += net.get("UV_INDEX", "").split()
    urls = [re.sub(r"^[\w.-]+=", "", url).rstrip("/") + f"/{package}/" for url in named]
    for place in filter(None, net.get("UV_FIND_LINKS", "").split(",")):
        urls.append(place if "://" in place else Path(place).resolve().as_uri())
    for url in urls:
        try:
            parts = urllib.parse.urlsplit(url)
            is_url = parts.scheme in ("http", "https", "file") and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:  # so nobody knows which part of it is the password
            raise BootstrapError(
                "package index: expected https://HOST/PATH or https://USER:PASSWORD@HOST/PATH, "
                "found another text, not shown as it may hold a password. Fix: correct "
                "PIP_INDEX_URL, UV_DEFAULT_INDEX or pip's configuration; in a password, "
                "/ is written %2F, @ %40 and : %3A."
            )
    return urls


def listed(page: str, net: dict[str, str]) -> dict[str, str]:
    """The files that a page names: name -> address. Raises BootstrapError."""
    found = {}
    for href in re.findall(r"""href=["']([^"'#]+)""", get(page, net).decode("utf-8", "replace")):
        url = urllib.parse.urljoin(without_secret(page), html.unescape(href))
        found[urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]] = url
    return found


def get(url: str, net: dict[str, str]) -> bytes:
    """What is at an address; of a folder, a page that lists it. Raises BootstrapError."""
    clean = without_secret(url)
    try:
        folder = Path(urllib.request.url2pathname(urllib.parse.urlsplit(clean).path))
        if clean.startswith("file:") and folder.is_dir():
            if (folder / "index.html").exists():
                return (folder / "index.html").read_bytes()
            return "".join(f'<a href="{file.as_uri()}">' for file in folder.iterdir()).encode()
        accept = {"Accept": "text/html, */*;q=0.5"}
        request = urllib.request.Request(clean, headers=accept)  # noqa: S310
        with opener(url, net).open(request, timeout=TIMEOUT_S) as response:
            return bytes(response.read())
    except (OSError, ValueError, HTTPException) as error:
        said = str(error) or type(error).__name__
        advice = "check the network, or set UV_DEFAULT_INDEX to an index you can reach"
        if "401" in said or "403" in said:
            advice = "PIP_INDEX_URL=https://USER:PASSWORD@HOST/PATH, or a line in ~/.netrc"
        elif "407" in said:
            advice = "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
        elif "CERTIFICATE_VERIFY_FAILED" in said:
            advice = "SSL_CERT_FILE=FILE, the certificates of your network's authority"
        raise BootstrapError(
            f"{clean.partition('?')[0]}: expected an answer, found {said}. Fix: {advice}."
        ) from None


def opener(url: str, net: dict[str, str]) -> urllib.request.OpenerDirector:
    """What opens ``url`` with the passwords, certificates and proxies of ``net``."""
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        login, _, password = netrc.netrc(net.get("NETRC")).authenticators(host) or ("", "", "")
        if login:
            passwords.add_password(None, url, login, password or "", is_authenticated=True)
    except (OSError, netrc.NetrcParseError):
        pass  # none, or none that pip could read either
    for page in pages("", net):
        parts = urllib.parse.urlsplit(page)
        if parts.username is not None:  # sent to its host alone, not to where that redirects
            user, password = map(urllib.parse.unquote, (parts.username, parts.password or ""))
            top = urllib.parse.urljoin(without_secret(page), "/")
            passwords.add_password(None, top, user, password, is_authenticated=True)
    context = ssl.create_default_context()
    for bundle in filter(os.path.isfile, [*SYSTEM_BUNDLES, net.get("SSL_CERT_FILE", "")]):
        context.load_verify_locations(bundle)
    if net.get("SSL_CLIENT_CERT"):
        context.load_cert_chain(net["SSL_CLIENT_CERT"])
    if host in re.split(r"[\s,]|:\d+", net.get("UV_INSECURE_HOST", "")):  # a checksum protects us
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    proxies = urllib.request.getproxies()
    proxies.update({name[:-6]: net[name] for name in ("http_proxy", "https_proxy") if name in net})
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPBasicAuthHandler(passwords),
    )
