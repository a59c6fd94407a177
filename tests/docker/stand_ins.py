"""Images under the names that docker-compose.monitoring.yaml asks its registry for, made here.

No registry is asked: the programs are Debian's, from this machine's PATH, each at the place where
its project's own image has it. Two are not what they stand for, where those cannot be had:
Grafana's place is kept by a program that sleeps, and statsd_exporter's by our collector.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import REPOSITORY, config
from monitoring import stack
from tests.docker.sandbox import docker
from tests.monitoring import documents
from tests.monitoring.receivers import STATSD_EXPORTER

MIRROR = "ws-test-mirror"
#: Image's last name → (its program there, where it is here).
PROGRAMS = {
    "prometheus": ("prometheus", stack.find("prometheus")),
    "blackbox-exporter": ("blackbox_exporter", stack.find("blackbox")),
    "node-exporter": ("node_exporter", stack.find("host")),
    "process-exporter": ("process-exporter", stack.find("process")),
    "statsd-exporter": ("statsd_exporter", STATSD_EXPORTER),
    "grafana": ("sleep", shutil.which("sleep")),
}
_DOCKERFILE = """
FROM {root}
COPY --chmod=755 {program} /bin/{program}
COPY python/ /opt/python/
RUN install -d -o nobody /prometheus /var/lib/grafana
USER nobody
ENTRYPOINT {entrypoint}
"""
#: As if it were statsd_exporter: the same two options, and no mapping, which it has built in.
_COLLECTOR = """#!/bin/sh
for option; do
  case $option in
    --statsd.listen-udp=*) udp=${option#*=} ;;
    --web.listen-address=*) http=${option#*=} ;;
  esac
done
export PYTHONPATH=/opt/python PYTHONDONTWRITEBYTECODE=1
exec python3 -m monitoring.collector.collector --statsd="0.0.0.0$udp" --listen="0.0.0.0$http"
"""


def missing() -> list[str]:
    """Programs of Debian's packages that are not installed."""
    return [name for name, (_, path) in PROGRAMS.items() if not path and name != "statsd-exporter"]


@contextmanager
def mirror(directory: Path) -> Iterator[str]:
    """A value for MONITORING_REGISTRY, whose images are all here until the end."""
    services = documents.read(REPOSITORY / "docker-compose.monitoring.yaml")["services"]
    images = [
        s["image"].replace("${MONITORING_REGISTRY:-docker.io}", MIRROR) for s in services.values()
    ]
    try:
        for image in images:
            _build(image, directory)
        yield MIRROR
    finally:
        docker("rmi", "--force", *images)


def _build(image: str, directory: Path) -> None:
    last = image.rpartition("/")[2].partition(":")[0]
    program, path = PROGRAMS[last]
    context = directory / last
    (context / "python").mkdir(parents=True)
    if path:
        shutil.copy(path, context / program)
    else:
        (context / program).write_text(_COLLECTOR)
        packages = Path(sysconfig.get_path("purelib"))
        for source in (REPOSITORY / "monitoring", packages / "prometheus_client"):
            shutil.copytree(source, context / "python" / source.name)
    entrypoint = '["/bin/sleep", "infinity"]' if last == "grafana" else f'["/bin/{program}"]'
    root = f"tigerbeetle-emulator:{config.load().release}"
    text = _DOCKERFILE.format(root=root, program=program, entrypoint=entrypoint)
    (context / "Dockerfile").write_text(text)
    done = docker("build", "--network=none", f"--tag={image}", str(context))
    assert done.returncode == 0, done.stderr
