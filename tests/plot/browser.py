"""A real browser that a test drives: real keys, any window size, any colour scheme."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

import pytest

_WAIT = 60.0  # seconds for an answer, on a busy machine
_KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}

# The browser reads from file 3 and writes to file 4.
_LAUNCH = """
import os, sys
for place, file in enumerate(map(int, sys.argv[1:3]), 100):
    os.dup2(file, place)
os.dup2(100, 3)
os.dup2(101, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Tab:
    """A page in headless Chromium, spoken to by the DevTools protocol over two pipes.

    Attributes:
        errors: what the page threw.
    """

    def __init__(self, read: int, write: int) -> None:
        self.errors: list[str] = []
        self._read, self._write = read, write
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Runtime.enable")
        self.send("Page.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """A command's result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select([self._read], [], [], _WAIT)[0], "the browser doesn't answer"
            self._buffer += os.read(self._read, 1 << 16)
        text, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def open(self, page: Path, size: tuple[int, int], scheme: str = "light") -> None:
        """Show a page in a window of a width and height, as a system of a colour scheme does."""
        width, height = size
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete' && document.getElementById('found')?.textContent")

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.send("Browser.close")

    def run(self, script: str) -> Any:
        """What an expression of JavaScript comes to, which must fit JSON."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true."""
        frames = "new Promise(done => requestAnimationFrame(() => setTimeout(done, 30)))"
        for _ in range(200):
            if value := self.run(script):
                return value
            self.run(frames)
        raise AssertionError(f"never true: {script}")

    def press(self, *keys: str) -> None:
        """Press keys, by name; a character stands for itself."""
        for key in keys:
            code = _KEYS.get(key, 0)
            text = {"text": "\r" if key == "Enter" else key} if key == "Enter" or len(key) == 1 else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)


@contextmanager
def browser_tab(folder: Path) -> Iterator[Tab]:
    """A tab of headless Chromium; the test is skipped where no browser is installed.

    Args:
        folder: where the browser's profile goes.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed: the page is not looked at in a browser")
    there, write = os.pipe()
    read, back = os.pipe()
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
    started = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, str(there), str(back), browser, *options, f"--user-data-dir={folder}"],
        pass_fds=(there, back),
        stderr=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(back)
    try:
        tab = Tab(read, write)
        yield tab
        tab.close()
        started.wait(_WAIT)
    finally:
        started.kill()
        started.wait()
        os.close(read)
        os.close(write)
