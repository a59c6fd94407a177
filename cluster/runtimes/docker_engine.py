"""The Docker engine of this machine: commands put together, and run, in one place.

Compose reads ``docker-compose.tb.yaml`` with ``env/tigerbittle.env``, and this process's own
environment wins, exactly as in ``cluster.config``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from cluster import REPOSITORY, config
from cluster.refusal import Refusal, decoded, last_line, understood

Value = TypeVar("Value")

COMPOSE_FILE = REPOSITORY / "docker-compose.tb.yaml"

#: What the README asks for: 20.10 has `errnoRet` in seccomp profiles, and rootless volumes.
ENGINE_MIN = (20, 10)
#: `build.tags`, and `${VAR:+...}` inside of one another; 2.26 is what is tested.
COMPOSE_MIN = (2, 20)

_ANSWER_TIMEOUT_S = 60
_GONE = re.compile(r"[Nn]o such|not found")
#: What every engine says of itself.
_SAID = (
    *((name, str) for name in ("ServerVersion", "KernelVersion", "Name", "DockerRootDir")),
    ("MemTotal", int),
)
_VERSION = re.compile(r"(\d+)\.(\d+)")


def project(environ: Mapping[str, str] = os.environ) -> str:
    """The Compose project: prefix of volumes and network, label of every container."""
    return environ.get("COMPOSE_PROJECT_NAME") or "wallet-service"


def network(environ: Mapping[str, str] = os.environ) -> str:
    """The replicas' network, as Compose calls it."""
    return f"{project(environ)}_tigerbeetle-net"


def compose(*arguments: str) -> list[str]:
    """The argument list of a ``docker compose`` command on our file."""
    file, env_file = str(COMPOSE_FILE), str(config.ENV_FILE)
    return ["docker", "compose", "--file", file, "--env-file", env_file, *arguments]


def service(index: int) -> str:
    """Replica ``index`` in the Compose file."""
    return f"tigerbeetle-{index}"


def in_service(index: int, script: str) -> list[str]:
    """The argument list that runs a script as the replica's service: its user and confinement."""
    run = ("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint=sh")
    return compose(*run, service(index), "-c", script)


def shell(command: list[str], **variables: str) -> str:
    """A command as a shell line, for pyinfra: with variables of its own, without the token."""
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return shlex.join(["env", f"--unset={config.PREFIX}AUTH_TOKEN", *assignments, *command])


def environ(**variables: str) -> dict[str, str]:
    """This process's environment for a child: without the token, which no container needs."""
    kept = {k: v for k, v in os.environ.items() if k != f"{config.PREFIX}AUTH_TOKEN"}
    return kept | variables


def run(
    command: list[str], timeout_s: float = _ANSWER_TIMEOUT_S, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end, output caught, whatever the exit code. Raises Refusal without docker."""
    try:
        return decoded(
            subprocess.run(
                command,
                cwd=REPOSITORY,
                env=environ(**variables),
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        )
    except (FileNotFoundError, PermissionError):  # the latter from an unreadable PATH entry
        raise Refusal(
            "docker: expected the command on PATH, found none. Fix: install Docker "
            "(pyinfra inventories/local.py tasks.docker.install, on Debian or Ubuntu), or use "
            "INVENTORY=inventories/process.py"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refusal(
            f"docker: expected an answer within {timeout_s:g} s to `{shlex.join(command[:4])} …`, "
            "found none. Fix: look at the engine's own log, or restart it"
        ) from None


def stdout(command: list[str], timeout_s: float = _ANSWER_TIMEOUT_S, /, **variables: str) -> str:
    """What a command that must succeed prints. Raises Refusal with its last line."""
    done = run(command, timeout_s, **variables)
    if done.returncode != 0:
        raise Refusal(refusal(command, done.stderr or done.stdout))
    return done.stdout


def refusal(command: list[str], said: str) -> str:
    """One line about a docker command that failed."""
    found = last_line(said).rstrip(".")
    return (
        f"`{shlex.join(command)}`: expected it to succeed, found: {found}. "
        "Fix: see what `docker info` and the engine's own log say"
    )


def found(command: list[str]) -> str | None:
    """What `docker ... inspect` prints; None where there is no such thing. Raises Refusal."""
    done = run(command)
    if done.returncode == 0:
        return done.stdout
    if "o such " in done.stderr:
        return None
    raise Refusal(refusal(command[:3], done.stderr))


def inspected(
    kind: str, names: Sequence[str], how: Callable[[dict[str, Any]], Value]
) -> list[Value]:
    """What ``how`` makes of all that the engine knows of these; those that are gone are left out.

    Raises Refusal.
    """
    done = run(["docker", kind, "inspect", *names])
    if done.returncode != 0 and not _GONE.search(done.stderr):
        raise Refusal(refusal(["docker", kind, "inspect"], done.stderr))
    return read(["docker", kind, "inspect"], done.stdout or "[]", lambda all_: [*map(how, all_)])


def json_of(command: list[str], how: Callable[[Any], Value]) -> Value:
    """What ``how`` makes of the JSON that a command prints. Raises Refusal."""
    return read(command, stdout(command), how)


def read(command: list[str], said: str, how: Callable[[Any], Value]) -> Value:
    """What ``how`` makes of the JSON that the command has said. Raises Refusal."""
    with _understood(command[:3]):
        return how(json.loads(said))


def _understood(command: Sequence[str]) -> AbstractContextManager[None]:
    fix = "see what it prints, and whether `docker` on PATH is Docker's own"
    what = f"`{shlex.join(command)}`"
    return understood(what, expected="the answer of a Docker engine", fix=fix)


def info() -> dict[str, Any]:
    """What the engine says of itself. Raises Refusal when none answers, or one that will not do."""
    done = run(["docker", "info", "--format", "{{json .}}"])
    try:
        found: dict[str, Any] = dict(json.loads(done.stdout))
    except (ValueError, TypeError):
        found = {}
    logs = (found.get("Plugins") or {}).get("Log") or []
    if "host" in found or "k8s-file" in logs:  # by its own command, or through its socket
        raise Refusal(
            "docker",
            expected="a Docker engine",
            found="Podman, which wants the path of a seccomp profile, and gets its text",
            fix="install Docker, rootless if need be, or use INVENTORY=inventories/process.py",
        )
    if found.get("ServerErrors") or not found.get("ServerVersion"):
        # Some clients say it in their JSON, others beside it.
        why = (found.get("ServerErrors") or [last_line(done.stderr)])[0]
        if "permission denied" in why.lower():
            raise Refusal(
                "docker",
                expected="the right to use the engine's socket",
                found=why,
                fix="sudo usermod -aG docker $USER, and log in again; or do this as root",
            )
        raise Refusal(
            f"docker: expected an engine that answers, found: {why}. Fix: start it "
            "(systemctl start docker, or Docker Desktop), or name another one in DOCKER_HOST"
        )
    return found


def check_versions() -> dict[str, Any]:
    """Engine and Compose are new enough; what the engine says. Raises Refusal."""
    found = info()
    _require("docker", str(found["ServerVersion"]), ENGINE_MIN, "upgrade the engine")
    done = run(["docker", "compose", "version", "--short"])
    said = done.stdout.strip() or "no Compose plugin"
    _require(
        "docker compose",
        said,
        COMPOSE_MIN,
        "install the Compose v2 plugin (package docker-compose-plugin; Debian 13: docker-compose)",
    )
    with _understood(["docker", "info"]):  # a program of that name may leave any of them out
        return found | {key: kind(found[key]) for key, kind in _SAID}


def _require(what: str, found: str, minimum: tuple[int, int], fix: str) -> None:
    match = _VERSION.search(found)
    if match is None or (int(match[1]), int(match[2])) < minimum:
        raise Refusal(
            f"{what}: expected version {minimum[0]}.{minimum[1]} or newer, found {found}. "
            f"Fix: {fix}"
        )


def check_network() -> None:
    """The replicas' network is there, as it is while they run. Raises Refusal."""
    if run(["docker", "network", "inspect", network()]).returncode != 0:
        raise Refusal(
            f"network {network()}: expected it to be there, found none. "
            "Fix: start the replicas first, make up INVENTORY=inventories/local.py"
        )
