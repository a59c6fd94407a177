"""``python -m cluster COMMAND``: all that a person or a program asks of the cluster.

A command is loaded when it is called, so that none pays for the others' imports.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import cast

import click

from cluster import interruption
from cluster.refusal import Interrupted, Refusal, refusal_of

#: Section → command → where it is ("module:name"), and what it does.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Start here": {
        "quickstart": ("cluster.operate.quickstart:main", "Deploy, verify, load, audit, report.")
    },
    "Cluster": {
        "config": ("cluster.config.check:of_file", "Check an env file, and say what it means."),
        "inventory": ("cluster.config.check:of_inventory", "Check an inventory; say what it is."),
        "run": ("cluster.operate.phase:main", "Run a task on an inventory's hosts, or deploy."),
        "init-env": ("cluster.config.env_file:main", "Write a private env file."),
        "adopt": ("cluster.operate.adopt:main", "Take over replicas that somebody has started."),
        "upgrade": ("cluster.operate.upgrade:main", "Upgrade every replica to a release."),
        "migrate": (
            "cluster.operate.migrate.command:main",
            "Move a whole ledger into a new cluster.",
        ),
        "status": ("cluster.health.status_command:main", "Show the replicas, and if they commit."),
        "logs": ("cluster.health.logs:main", "Print the last log lines."),
        "download": ("cluster.tigerbeetle.release:download_", "Download the pinned release."),
        "pin": ("cluster.tigerbeetle.release:pin_", "Record the checksum of the release."),
    },
    "Docker": {
        "compose-tb": ("cluster.operate.compose_tb:main", "Three replicas here: init, up, down, …"),
        "doctor": ("cluster.health.doctor:main", "Say what is wrong, why, and what to do."),
    },
    "Backup and repair": {
        "backup": ("cluster.operate.backup.take:main", "Back up all data files of one moment."),
        "backup-verify": ("cluster.operate.backup.verify:main", "Prove that a backup restores."),
        "restore": ("cluster.operate.backup.restore:main", "Put all data files of a backup back."),
        "backups": ("cluster.operate.backup.listing:main", "List the cluster's backups."),
        "backup-init": ("cluster.operate.backup.repository:init_", "Make a new repository."),
        "restic": ("cluster.operate.backup.repository:restic_", "Run restic on the repository."),
        "recover": ("cluster.operate.recover:main", "Make a lost data file again from the others."),
    },
    "Monitoring": {
        "alerts": ("monitoring.alerts:main", "Show Prometheus' targets, and the alerts that fire."),
        "planned-stop": ("monitoring.planned:main", "Tell the alerts that a stop is planned."),
        "watch": ("cluster.health.watch:main", "Follow the logs, with what each line means."),
    },
    "Load": {
        "load": ("loadtests.load:main", "Load the cluster with wallets, audit it, report."),
        "audit": ("loadtests.audit:main", "Prove a run's ledger, transfer by transfer."),
        "report": ("loadtests.report.report:main", "Write a run's HTML report again."),
        "capacity": ("loadtests.capacity:main", "Find the highest rate within a latency bound."),
        "workload": ("loadtests.workload:main", "Act on wallets with every operation recorded."),
        "check": ("loadtests.check:main", "Judge a recorded history."),
        "compare": ("loadtests.report.compare:main", "Compare two runs, or two groups of runs."),
        "load-history": (
            "loadtests.report.load_history:main",
            "Judge the last load by earlier ones.",
        ),
        "gate": ("loadtests.report.gate:main", "Judge a run by thresholds."),
        "load-schema": ("loadtests.report.schema:main", "Write the JSON schema of a run's files."),
        "load-scenarios": ("loadtests.traffic.scenario:main", "List scenarios and profiles."),
    },
}


class Table(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none."""
        for section in COMMANDS.values():
            if cmd_name in section:
                module, _, name = section[cmd_name][0].partition(":")
                found = cast(click.Command, getattr(importlib.import_module(module), name))
                found.name = cmd_name
                return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, with its sections, and nothing imported for it."""
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])


@click.group(cls=Table)
def commands() -> None:
    """All that a person or a program asks of the cluster.

    Exit codes: 0 done, 1 failed, 2 refused or wrong usage, 130 interrupted. Commands that judge
    have more: see COMMAND --help.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. Whatever refuses, or is interrupted, ends in one line."""
    try:
        with interruption.heard():
            code = commands.main(arguments, prog_name="python -m cluster", standalone_mode=False)
        if sys.stdout:  # there is none where it was closed before
            sys.stdout.flush()  # here: at Python's end nobody could tell what a full disk means
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Refusal, OSError) as error:
        refusal = refusal_of(error)
        print(f"error: {refusal}", file=sys.stderr)
        return refusal.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return Interrupted.exit_code
    return code or 0
