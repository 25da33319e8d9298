"""A tab of headless Chromium, steered by the protocol of its developer tools."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.builders.waiting import wait_for
from tests.support.servers.chromium import chromium


class Tab:
    """A tab.

    Args:
        commands: Takes commands; each ends with a zero byte.
        replies: Gives replies and events, likewise.
    """

    def __init__(self, commands: Any, replies: Any) -> None:
        self._commands, self._replies = commands, replies
        self._numbers = itertools.count(1)
        self._waiting = b""
        self._session: str | None = None
        self.requested: list[str] = []
        """URLs of all requests."""

        self.complaints: list[str] = []
        """Errors of the console and of scripts, and what the page's policy refused."""

        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while (message := self._message()).get("id") != number:
            self._hear(message)
        assert "error" not in message, (method, message)
        result: dict[str, Any] = message["result"]
        return result

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (script, found)
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Open a page, and wait until its scripts have run."""
        self.ask("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, script: str) -> Any:
        """Wait until an expression in the page is true of itself; return it."""
        return wait_for(lambda: self.run(script))

    def resize(self, width: int, height: int = 900) -> None:
        """Have the page shown at a width, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.ask("Emulation.setDeviceMetricsOverride", mobile=width < 700, **metrics)

    def prefer(self, **features: str) -> None:
        """Have the page shown to a user who prefers something: `color_scheme="dark"`."""
        told = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.ask("Emulation.setEmulatedMedia", features=told)

    def press(self, key: str) -> None:
        """Press a key, such as `Tab`, `Enter` or `a`."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", "Tab": ""}.get(key, key)
        event = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.ask("Input.insertText", text=text)

    def picture(self, *, whole: bool = False) -> bytes:
        """Return a picture of the page as PNG; of all of it, or as much as the window shows."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            read = os.read(self._replies.fileno(), 1 << 16)
            assert read, "Chromium has ended"
            self._waiting += read
        head, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(head)
        return message

    def _hear(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.complaints.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(json.dumps(params["entry"]))


@contextlib.contextmanager
def tab() -> Iterator[Tab]:
    """Start Chromium, and yield a tab of it."""
    program = chromium()
    assert program is not None
    to_it, commands = os.pipe()
    replies, from_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # It reads at file 3 and writes at file 4.
        script = f'exec "$@" 3<&{to_it} 4>&{from_it}'
        given = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        given += [f"--user-data-dir={Path(folder) / 'profile'}", "--no-first-run"]
        running = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *given],
            pass_fds=(to_it, from_it),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        try:
            with os.fdopen(commands, "wb") as writing, os.fdopen(replies, "rb") as reading:
                yield Tab(writing, reading)
        finally:
            running.kill()
            running.wait()
