"""Replicas as hardened systemd units, each on a server of its own; no Docker is needed."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from cluster.refusal import Refusal
from cluster.runtimes import layout, program
from cluster.runtimes.base import ReplicaProcess, start_arguments
from cluster.runtimes.container import RESTARTS_MAX
from cluster.runtimes.servers import OnServers
from cluster.tigerbeetle import binary

_JOURNAL = """\
# The replica's log: kept across restarts of the server, and never larger than this. Written by
# pyinfra.
[Journal]
Storage=persistent
SystemMaxUse=256M
"""
_CURSOR = "-- cursor: "


class Systemd(OnServers):
    """The runtime "systemd"."""

    LINES_OPTION = "--lines"
    NEEDS_PYTHON = True
    #: By `ProtectHome`, `PrivateTmp` and `PrivateDevices` of the unit.
    HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev")  # noqa: S108 - not used

    def state_command(self, index: int) -> str:
        """By `systemctl`."""
        properties = "LoadState,ActiveState,MainPID,NRestarts"
        return f"systemctl show {layout.unit(self.deployment, index)} --property={properties}"

    @staticmethod
    def parse_state(output: str) -> ReplicaProcess | None:
        """The state in what ``systemctl show`` prints; None when there is no such unit."""
        fields = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        if fields.get("LoadState") != "loaded":
            return None
        pid = int(fields.get("MainPID") or 0)
        state = fields.get("ActiveState", "")
        if state == "activating" and int(fields.get("NRestarts") or 0) >= RESTARTS_MAX:
            return ReplicaProcess("FATAL", 0)
        known = {
            "active": "RUNNING",
            "activating": "BACKOFF",
            "deactivating": "STOPPING",
            "failed": "FATAL",
            "inactive": "EXITED",
        }
        return ReplicaProcess(known.get(state, state.upper() or "UNKNOWN"), pid)

    def log_command(self, index: int, *options: str) -> str:
        """From the replicas' own journal."""
        name = self.cluster.replicas[index].name
        journal = ["journalctl", f"--namespace={layout.JOURNAL}", f"--unit={name}", "--output=cat"]
        return shlex.join([*journal, "--quiet", "--no-pager", *options])

    @staticmethod
    def log_options(mark: str) -> list[str]:
        """A mark is journald's cursor. Where that line is gone, it goes on behind it."""
        return ["--show-cursor", *([f"--after-cursor={mark}"] if mark else [])]

    @staticmethod
    def marked(said: Sequence[str], mark: str) -> tuple[list[str], str]:
        """Its last line is the cursor, unless nothing was said."""
        if said and said[-1].startswith(_CURSOR):
            return [*said[:-1]], said[-1].removeprefix(_CURSOR)
        return [*said], mark

    def data_file(self, index: int) -> str:
        """On the server's own disk."""
        return layout.data_path(self.deployment, index)

    def check_program(self, index: int, machine: str) -> None:
        """This machine has it, in the configured release, for the server's kind of processor."""
        found = program.to_ship(self.deployment)
        if found.machine not in ("", machine):
            raise Refusal(
                f"replica {index}'s server: expected {found.machine}, which {found.path} is for, "
                f"found {machine}. Fix: name the program for {machine} in TIGERBEETLE_BIN"
            )

    def offer(self) -> str:
        """By the program that would be shipped."""
        return binary.offer([str(program.to_ship(self.deployment).path)], self.deployment)

    def described(self, index: int) -> str:
        """The unit, with the program as it was shipped. Raises Refusal."""
        shipped = program.to_ship(self.deployment)
        return self.unit_file(index, layout.program(self.deployment, shipped.sha256))

    def description(self, index: int) -> dict[str, str]:
        """The unit, and a journal of its own with a limit."""
        unit_path = f"/etc/systemd/system/{layout.unit(self.deployment, index)}"
        return {layout.JOURNAL_CONFIG: _JOURNAL, unit_path: self.described(index)}

    def unit_file(self, index: int, program_path: str) -> str:
        """The unit of replica ``index``, run from ``program_path`` on the server."""
        command = [program_path, *start_arguments(self.cluster, self.data_file(index))]
        values = {"command": " ".join(command).replace("%", "%%"), "journal": layout.JOURNAL}
        return self.rendered("tigerbeetle.service.j2", index, values)

    def stop(self, index: int) -> str:
        """It starts again with the server."""
        return f"systemctl stop {layout.unit(self.deployment, index)}"

    def start(self, index: int) -> str:
        """Now, and whenever the server starts."""
        return self._enabled(index, "start")

    def renew(self, index: int) -> str:
        """As its unit is written now."""
        return self._enabled(index, "restart")

    def stop_all(self, running: Collection[int]) -> list[str]:
        """They no longer start with their servers."""
        units = [layout.unit(self.deployment, index) for index in sorted(running)]
        return [f"systemctl disable --quiet --now {unit}" for unit in units]

    def tigerbeetle(self, index: int, *arguments: str, network: bool = False) -> str:
        """The newest program that was shipped."""
        return self._as_owner(layout.PROGRAM_LINK, *arguments)

    def sh(self, index: int, script: str) -> str:
        """As the data file's owner."""
        return self._as_owner("sh", "-c", script)

    def _enabled(self, index: int, verb: str) -> str:
        """Whoever wrote the unit may have been interrupted before systemd was told."""
        unit = layout.unit(self.deployment, index)
        told = f"systemctl daemon-reload && systemctl enable --quiet {unit}"
        return f"{self.release(index)}; {told} && systemctl {verb} {unit}"

    def _as_owner(self, *command: str) -> str:
        return shlex.join(["runuser", "-u", layout.USER, "--", *command])
