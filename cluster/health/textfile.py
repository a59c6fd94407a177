"""Metrics that this machine tells the monitoring: a file, which is read at every scrape.

A file outlives whoever reads it: when the collector, Prometheus or the machine start anew, the
metrics are as they were. Our collector reads it (``--textfiles``); beside replicas in Docker, the
node exporter does. On the monitoring host of servers it is brought over SSH.
"""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from cluster.config import kept
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal, last_line, refusal_of
from cluster.runtimes import ssh

#: On the monitoring host; each machine that operates the cluster has a file of its own there.
DIRECTORY_THERE = "/var/lib/tigerbeetle-monitoring"


def writer() -> str:
    """This machine, as the files and their metrics tell it from others."""
    return socket.gethostname() or "unnamed"


def directory(deployment: Deployment) -> Path:
    """Where the files of a deployment on this machine are, once it is monitored."""
    return deployment.state_dir / "monitoring" / "textfiles"


def publish(deployment: Deployment, text: str) -> None:
    """Put the file in its place, where the deployment is monitored. Raises Refusal."""
    try:
        if deployment.monitoring is not None:
            done = ssh.run(deployment.monitoring, _put(text))
            if done.returncode:
                raise Refusal(f"{deployment.monitoring.hostname}: {last_line(done.stderr)}")
        elif (here := directory(deployment)).is_dir():
            kept.write(here / f"{writer()}.prom", text.encode(), mode=0o644)
    except OSError as error:
        raise refusal_of(error) from None


def _put(text: str) -> str:
    """The shell line that writes all of the file there, or nothing; nor where nobody reads it."""
    at = shlex.quote(f"{DIRECTORY_THERE}/{writer()}.prom")
    write = f"printf %s {shlex.quote(text)} >{at}.$$ && chmod 644 {at}.$$ && mv {at}.$$ {at}"
    return f"! test -d {DIRECTORY_THERE} || {{ {write}; }}"
