"""A headless Firefox for tests of pages, driven by Marionette, the protocol that every Firefox speaks by itself."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.needs import missing

KEYS = {"Enter": "\ue007", "Escape": "\ue00c"}
PREFERENCES = {
    "browser.download.folderList": 2, "browser.download.manager.showWhenStarting": False,
    "browser.shell.checkDefaultBrowser": False, "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False, "browser.startup.page": 0, "app.update.enabled": False,
    "browser.helperApps.neverAsk.saveToDisk": "application/json,text/csv", "dom.disable_beforeunload": True,
}  # fmt: skip


class Firefox:
    """A session of a running Firefox: commands are frames of JSON with their length before them."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=180)
        self.buffer, self.count = b"", 0
        self._read()
        self.command("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})

    def command(self, name: str, **parameters: Any) -> Any:
        """The answer to a command."""
        self.count += 1
        message = json.dumps([0, self.count, name, parameters]).encode()
        self.socket.sendall(str(len(message)).encode() + b":" + message)
        _, _, error, result = self._read()
        assert error is None, error
        return result.get("value", result) if isinstance(result, dict) else result

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns in the page."""
        return self.command("WebDriver:ExecuteScript", script=script, args=list(arguments), newSandbox=False)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as on a keyboard."""
        presses = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("WebDriver:PerformActions", actions=[{"type": "key", "id": "keyboard", "actions": presses}])

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file, as in the dialog of an input."""
        chosen = self.command("WebDriver:FindElement", using="css selector", value=selector)
        self.command("WebDriver:ElementSendKeys", id=next(iter(chosen.values())), text=str(file))

    def until(self, script: str, seconds: float = 60) -> Any:
        """What a function body returns as soon as that is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"not true within {seconds} s: {script}"
            time.sleep(0.02)
        return value

    def _read(self) -> Any:
        while b":" not in self.buffer:
            self.buffer += self._more()
        length, _, rest = self.buffer.partition(b":")
        while len(rest) < int(length):
            rest += self._more()
        self.buffer = rest[int(length) :]
        return json.loads(rest[: int(length)])

    def _more(self) -> bytes:
        received = self.socket.recv(65536)
        assert received, "Firefox closed the connection"
        return received


@contextmanager
def firefox(profile: Path, downloads: Path) -> Iterator[Firefox]:
    """The system's Firefox with a profile; where there is none, tests are skipped, or fail where it is required."""
    program = shutil.which("firefox") or shutil.which("firefox-esr")
    if program is None:
        missing("browser", "no Firefox on this machine: install the package firefox-esr")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    profile.mkdir(parents=True, exist_ok=True)
    wanted = PREFERENCES | {"marionette.port": port, "browser.download.dir": str(downloads)}
    lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in wanted.items()]
    (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
    command = [program, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 180
        while True:
            try:
                session = Firefox(port)
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, "Firefox did not start"
                time.sleep(0.2)
        with session.socket:
            yield session
    finally:
        process.kill()
        process.wait()
