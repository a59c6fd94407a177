"""The shell lines that start a worker on a load host, and stop all of a run. Pure.

A worker is a transient unit: it has no file, and nothing of it is left when it has ended. Its user
exists for as long as it runs. It ends by itself a minute after its master is gone, and in any case
when a run cannot take so long.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from loadtests.hosts.bundle import Bundle

#: Below /var/lib, and in private/ there, as systemd keeps the state of a user that is no account's.
STATE = "wallet-load"
USER = "wallet-load"
MEMORY_MAX = "2G"
#: A worker's own core, and one for the client's own threads.
CPU_QUOTA = "200%"
TASKS_MAX = 256
#: Users finish, requests get their deadline, and the record is closed.
STOP_TIMEOUT_S = 90


@dataclass(frozen=True)
class Worker:
    """One worker: its run, where, and how it finds its master."""

    run: str
    number: int
    host: str
    clock_offset_ms: float
    rtt_ms: float
    master_port: int
    lasts_s: float
    python: str
    environment: Bundle
    code: Bundle

    @property
    def unit(self) -> str:
        """The unit's name; only one of a run has it."""
        return f"{prefix(self.run)}{self.number}.service"


def start(worker: Worker) -> str:
    """Start it; fails where it cannot even begin."""
    properties = {
        "Type": "exec",
        "User": USER,
        "DynamicUser": "yes",
        "StateDirectory": STATE,
        "WorkingDirectory": worker.code.place,
        "ProtectHome": "yes",
        "MemoryMax": MEMORY_MAX,
        "CPUQuota": CPU_QUOTA,
        "TasksMax": TASKS_MAX,
        "RuntimeMaxSec": round(worker.lasts_s),
        "TimeoutStopSec": STOP_TIMEOUT_S,
        "OOMScoreAdjust": 500,
    }
    environment = {
        "PYTHONPATH": f"{worker.code.place}:{worker.environment.place}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
        "LOADTESTS_RUNS": f"/var/lib/{STATE}",
        "LOADTESTS_HOST": worker.host,
        "LOADTESTS_CLOCK_OFFSET_MS": f"{worker.clock_offset_ms:.3f}",
        "LOADTESTS_RTT_MS": f"{worker.rtt_ms:.3f}",
    }
    command = ["systemd-run", "--quiet", "--collect", f"--unit={worker.unit}"]
    command += [f"--property={key}={value}" for key, value in properties.items()]
    command += [f"--setenv={key}={value}" for key, value in environment.items()]
    command += [worker.python, "-m", "locust", "--locustfile", "loadtests/locustfile.py"]
    command += ["--worker", "--master-host", "127.0.0.1", "--master-port", str(worker.master_port)]
    return shlex.join(command)


def stop(run: str) -> str:
    """Stop all of a run's, in order, and wait for their end. Nothing to do where they have."""
    return f"systemctl stop '{prefix(run)}*'"


def last_words(run: str) -> str:
    """What they said last, which mostly is why they ended."""
    return f"journalctl --quiet --output=cat --lines=20 --unit='{prefix(run)}*'"


def prefix(run: str) -> str:
    """Of the names of a run's units."""
    return f"wallet-load-{run}-"


def directory(run: str) -> str:
    """What a run's workers have written, as root finds it."""
    return f"/var/lib/private/{STATE}/{run}"


def remove(run: str) -> str:
    """Remove what a run has left, but for what was brought for the next ones."""
    return f"rm -rf {shlex.quote(directory(run))}"
