"""A real Chromium without a window, driven by its DevTools protocol through a pipe."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


class Tab:
    """A page of the browser.

    Attributes:
        requests: the addresses that it asked for.
        complaints: errors and warnings of its console, and exceptions.
    """

    def __init__(self, browser: "Browser") -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.tabs[self._session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, session=self._session, **parameters)

    def show(self, file: Path, *, width: int, scheme: str) -> None:
        """Open a file, and wait until its script has ended."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=file.as_uri())
        self.value(
            "new Promise((done) => { const look = () => document.documentElement?.dataset.ready ? done() :"
            " setTimeout(look, 50); look(); })"
        )

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method in {"Runtime.exceptionThrown", "Log.entryAdded"}:
            self.complaints.append(json.dumps(parameters))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
            self.complaints.append(json.dumps(parameters["args"]))


class Browser:
    """The process, and the messages to and from it."""

    def __init__(self, commands: int, answers: int) -> None:
        self.tabs: dict[str, Tab] = {}
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._number = 0

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            tab = self.tabs.get(answer.get("sessionId", ""))
            if tab is not None:
                tab.note(answer["method"], answer["params"])
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self._answers, 1 << 16)
            assert got, "the browser has ended"
            self._rest += got
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run the machine's Chromium during the block; without one the test is skipped, and fails in CI.

    Args:
        profile: an empty folder.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing = f"no browser on this machine: {', '.join(NAMES)}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    commands_out, commands = os.pipe()
    answers, answers_in = os.pipe()

    def as_chromium_expects() -> None:
        # The numbers may be taken by the pipes themselves, so they are first moved away.
        reading, writing = os.dup(commands_out), os.dup(answers_in)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=as_chromium_expects,  # noqa: PLW1509  (no thread of this process holds a lock that it needs)
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_out)
    os.close(answers_in)
    try:
        yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait()
        os.close(commands)
        os.close(answers)
