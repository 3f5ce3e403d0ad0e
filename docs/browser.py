"""A headless Chromium that looks at pages, spoken to over a pipe in its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

_WAIT_S = 60.0
_QUIET = "document.documentElement.innerHTML.length"
"""Changes while a page is still being drawn."""


class Browser:
    """A window of Chromium; use as a context manager.

    Args:
        width: of the window, in pixels.
        theme: that pages are asked for.
    """

    def __init__(self, width: int = 1280, theme: Literal["light", "dark"] = "light") -> None:
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        program = next(filter(None, map(shutil.which, names)), None)
        if program is None:
            raise SystemExit("Chromium is not installed")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        orders, self._write = os.pipe()
        read, answers = os.pipe()
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run"]
        words += [f"--user-data-dir={self._profile.name}", "about:blank"]
        # Chromium reads orders from file 3 and answers in file 4.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (orders, answers)]
        shell = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words],
            pass_fds=ends,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for end in (orders, answers, *ends):
            os.close(end)
        self._answers = os.fdopen(read, "rb")
        self._number = 0
        self._session = ""
        self._rest = b""
        self._width = width
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        scheme = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        self._process.terminate()
        self._process.wait(30)
        self._answers.close()
        self._profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Returns the answer to one order of the protocol."""
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._write, json.dumps(order).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, height: int, style: str = "") -> None:
        """Opens a page and waits until it no longer changes.

        Args:
            url: of the page.
            height: of the window.
            style: CSS that is added to the page.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=self._width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url="about:blank")  # an address after # alone loads nothing
        self.call("Page.navigate", url=url)
        self.settle()
        css = json.dumps(style)
        self.run(
            f"document.head.appendChild(Object.assign(document.createElement('style'),"
            f"{{textContent: {css}}}))"
        )
        self.settle()

    def run(self, script: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def settle(self, quiet_s: float = 1.5) -> None:
        """Waits until the page has not changed for some time."""
        start = last_change = time.monotonic()
        before = None
        while time.monotonic() - last_change < quiet_s:
            assert time.monotonic() - start < _WAIT_S, "the page keeps changing"
            time.sleep(0.25)
            now = self.run(f"document.readyState + {_QUIET}")
            if now != before or not str(now).startswith("complete"):
                before, last_change = now, time.monotonic()

    def shoot(self, target: Path, columns: slice = slice(None), colors: int = 64) -> None:
        """Writes the window, or some of its columns of pixels, as a PNG of few colours."""
        from PIL import Image

        target.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        with Image.open(target) as picture:
            left, right, _ = columns.indices(picture.width)
            part = picture.crop((left, 0, right, picture.height))
            small = part.convert("RGB").quantize(colors)
        small.save(target, optimize=True)

    def _next(self) -> dict[str, Any]:
        """Returns the next message of the browser: an answer or an event."""
        while b"\0" not in self._rest:
            data = self._answers.read1(1 << 20)
            if not data:
                raise EOFError("Chromium has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content
