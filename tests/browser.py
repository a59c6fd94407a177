"""A headless Chromium that a test drives as a person does: it looks, types and clicks.

Spoken to over a pipe in Chromium's own protocol (--remote-debugging-pipe): nothing to install.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--disable-dev-shm-usage"),
)
#: Ten times what a busy machine has taken.
TIMEOUT_S = 120


class Page:
    """One page."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._number, self._read = 0, b""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    _session = ""

    def open(self, url: str) -> None:
        """Go there; ``wait_for`` what is to be seen."""
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        until = time.monotonic() + TIMEOUT_S
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < until, f"{expression}\n{self.text()}"
            time.sleep(0.05)
        return found

    def text(self) -> str:
        """All that can be read."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, element: str) -> None:
        """Click on what a JavaScript expression finds, as soon as it does, wherever that is."""
        self.wait_for(f"!!({element})")
        self.evaluate(f"({element}).click()")

    def type(self, element: str, text: str) -> None:
        """Replace what is in a field."""
        self.evaluate(f"{element}.focus(), {element}.select()")
        self._key("Delete")
        self._call("Input.insertText", text=text)

    def _key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=46)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._into, json.dumps(asked).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass  # an event
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            assert select.select([self._out], [], [], TIMEOUT_S)[0], "the browser is silent"
            part = os.read(self._out, 1 << 20)
            assert part, "the browser has ended"
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        return dict(json.loads(message))


def _pipe() -> tuple[int, int]:
    """The ends of a pipe, for reading and for writing: neither is the child's 3 or 4."""
    ends = os.pipe()
    high = (
        fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 10),
        fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 10),
    )
    for end in ends:
        os.close(end)
    return high


@contextmanager
def page(directory: Path) -> Iterator[Page]:
    """A page of a browser of its own, with its profile in ``directory``."""
    assert CHROMIUM
    (asks, into), (out, answers) = _pipe(), _pipe()
    command = [CHROMIUM, *OPTIONS, "--window-size=1200,1600", f"--user-data-dir={directory}"]
    process = subprocess.Popen(
        [*command, "--remote-debugging-pipe"],
        # It reads from descriptor 3 and writes to 4, whatever their numbers are here.
        preexec_fn=lambda: (os.dup2(asks, 3), os.dup2(answers, 4)),
        pass_fds=(3, 4),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(asks)
    os.close(answers)
    try:
        yield Page(into, out)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # and its helpers; its profile is thrown away
        process.wait()
        os.close(into)
        os.close(out)
