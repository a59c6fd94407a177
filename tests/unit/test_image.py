"""What the image's refusals tell a person to type."""

from __future__ import annotations

import pytest

from cluster import config
from cluster.refusal import Refusal
from cluster.runtimes import image


@pytest.mark.parametrize(
    ("changed", "fix"),
    [
        ({}, ". Fix: make compose-tb-build, or"),
        ({"release": "0.99.0"}, ". Fix: LU_CFG_TIGERBEETLE_RELEASE=0.99.0 make compose-tb-build,"),
        (
            {"image": "mirror/tb", "image_digest": "sha256:ab"},
            ". Fix: LU_CFG_TIGERBEETLE_IMAGE=mirror/tb LU_CFG_TIGERBEETLE_IMAGE_DIGEST=sha256:ab "
            "make compose-tb-build,",
        ),
    ],
)
def test_an_image_that_cannot_be_shipped_is_built_by_the_line_that_the_refusal_says(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], fix: str
) -> None:
    cluster = config.load(environ={}).model_copy(update=changed)
    monkeypatch.setattr(image, "is_current", lambda _: False)
    with pytest.raises(Refusal) as refused:
        image.check_shippable(cluster)
    assert fix in str(refused.value)
