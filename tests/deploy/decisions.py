"""What a deploy decides before it changes anything, asked of its checks without starting one."""

from __future__ import annotations

import re
import subprocess
from typing import Any
from unittest import mock

import pytest
from pyinfra.api.exceptions import DeployError

from cluster import REPOSITORY
from cluster.runtimes import processes
from cluster.tigerbeetle import binary
from tasks import preflight
from tests.clusters import Sandbox


def refusal(made: Sandbox, **changes: Any) -> str:
    """The words of the first check that refuses to deploy this, as ``changes`` make it."""
    deployment = made.deployment.model_copy(update=changes)
    here = mock.patch.object(preflight, "deployment_here", return_value=deployment)
    with made.entered(), here, pytest.raises(DeployError) as refused:
        _check()
    return str(refused.value)


def _check() -> None:
    """The checks that deploy.py lists for processes, in its order, without pyinfra around them."""
    listed = (REPOSITORY / "deploy.py").read_text().partition('"process":')[2]
    names = re.findall(r"preflight\.(\w+)\(\)", listed.partition("if host")[0])
    assert names, "deploy.py lists no checks for processes"
    for name in names:
        getattr(preflight, name).__wrapped__()


def format_files(made: Sandbox, *indexes: int, **settings: str) -> None:
    """Data files as a deploy with these settings would have made them; nothing is started."""
    with made.having(**settings):
        deployment = made.deployment
    for index in indexes:
        path = processes.files_of(deployment, index).data
        path.parent.mkdir(parents=True, exist_ok=True)
        command = binary.command(deployment)
        formatting = processes.format_command(deployment, command, index, path)
        subprocess.run(formatting, check=True, capture_output=True)
