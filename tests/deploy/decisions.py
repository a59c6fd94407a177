"""What a deploy decides before it changes anything, asked of its checks without starting one."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from cluster.checks import rules
from cluster.checks.observe import observe
from cluster.refusal import Refusal
from cluster.runtimes import of
from tests.clusters import Sandbox


def refusal(made: Sandbox, **changes: Any) -> str:
    """The words of the first check that refuses to deploy this, as ``changes`` make it."""
    deployment = made.deployment.model_copy(update=changes)
    with made.entered(), pytest.raises(Refusal) as refused:
        rules.check_all(deployment, observe(deployment))
    return str(refused.value)


def format_files(made: Sandbox, *indexes: int, **settings: str) -> None:
    """Data files as a deploy with these settings would have made them; nothing is started."""
    with made.having(**settings):
        deployment = made.deployment
    for index in indexes:
        for line in (of(deployment).prepare(index), *of(deployment).format(index)):
            subprocess.run(["sh", "-c", line], check=True, capture_output=True)
