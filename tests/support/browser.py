"""A headless Chromium, driven over the DevTools protocol: what a page shows, and what it complains of."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

START_S = 100.0
STEP_S = 100.0


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not there: apt-get install chromium")
    return found


class Tab:
    """One page. `complaints`: errors of scripts, of the console and of the content security policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self.complaints: list[str] = []

    async def listen(self) -> None:
        async for message in self._socket:
            reported = json.loads(message.data)
            if "id" in reported:
                self._answers.pop(reported["id"]).set_result(reported)
            elif reported["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(reported["params"]["exceptionDetails"])[:500])
            elif reported["method"] == "Log.entryAdded" and reported["params"]["entry"]["level"] == "error":
                self.complaints.append(
                    reported["params"]["entry"]["text"] + " " + reported["params"]["entry"].get("url", "")
                )

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        request = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(request if self._session is None else {**request, "sessionId": self._session})
        reported = await asyncio.wait_for(self._answers[number], STEP_S)
        assert "error" not in reported, f"{method}: {reported['error']}"
        result: dict[str, Any] = reported["result"]
        return result

    async def open(self, url: str, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        if self._session is None:
            target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
            self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                await self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait for the expression to be true in the page."""
        end = asyncio.get_running_loop().time() + STEP_S
        while not await self.value(expression):
            assert asyncio.get_running_loop().time() < end, f"{expression} did not come true; {self.complaints}"
            await asyncio.sleep(0.02)

    async def screenshot(self, path: Path, whole: bool = True) -> None:
        made = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(made["data"]))


@contextlib.asynccontextmanager
async def browsing(directory: Path) -> AsyncIterator[Tab]:
    """A tab of a browser of its own, whose files lie in `directory`."""
    command = [
        chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={directory / 'browser'}",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(directory)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        place = directory / "browser/DevToolsActivePort"
        end = asyncio.get_running_loop().time() + START_S
        while not place.exists() or place.read_text().count("\n") < 1:
            assert process.poll() is None and asyncio.get_running_loop().time() < end, "chromium does not start"
            await asyncio.sleep(0.05)
        port, path = place.read_text().split("\n")[:2]
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            tab = Tab(socket)
            listener = asyncio.create_task(tab.listen())
            yield tab
            listener.cancel()
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
