"""The page in a real browser: what it shows on a desk, on a phone and in the dark, and that text stays text."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from edged.bus.schema import BudgetState, Detection, Event, State
from edged.config.web import WebConfig
from tests.support import messages
from tests.support.browser import Tab, browsing, chromium
from tests.support.repeating import repeating
from tests.support.web_page import Ring, Served, ring, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVIL = '<img src=x onerror="document.title=1">'
TOKEN = "0123456789abcdef"


def state() -> State:
    broken = msgspec.structs.replace(messages.status("yard"), state="backoff", reason=f"no answer {EVIL}", captured=0)
    decision = msgspec.structs.replace(
        messages.decision(), reason=f"the best that fits {EVIL}", shares={"fp32": 0.25, "int8-sparse": 0.75}
    )
    telemetry = msgspec.structs.replace(messages.telemetry(), power_w=7.25, power_estimated=True)
    power = BudgetState("power", 5.0, 7.25, "W", True, "mean of 10 s")
    return msgspec.structs.replace(
        messages.state(),
        cameras=[messages.status(), broken],
        decision=decision,
        telemetry=telemetry,
        profile="night",
        limits={"deadline_ms": 50.0, "power_w": 5.0},
        budgets=[power],
    )


def living(served: Served, made: Ring) -> contextlib.AbstractContextManager[None]:
    def live(n: int) -> None:
        seen = [Detection(EVIL, 0, 0.9, (10.0, 10.0, 60.0, 60.0), track=n)]
        served.feed(msgspec.structs.replace(made.write(n % 256), detections=seen))
        if n % 5 == 0:
            told = Event(kind="restart", text=EVIL, camera="gate")
            served.feed(told, msgspec.structs.replace(state(), t_publish=1.7e9 + n, uptime_s=n / 10))

    return repeating(live, 0.1)


async def shown(tab: Tab, served: Served) -> None:
    await tab.until("document.querySelectorAll('.tile').length === 2")
    await tab.until("document.querySelector('.tile').dataset.picture > 2")
    await tab.until("document.querySelector('.tile img').naturalWidth === 160")
    await tab.until("document.querySelectorAll('.plots canvas').length === 4")


def test_what_the_page_shows(tmp_path: Path) -> None:
    chromium()

    async def look(served: Served) -> None:
        async with browsing(tmp_path) as tab:
            for name, width, height, dark in (("desk", 1280, 900, False), ("phone", 390, 844, True)):
                await tab.open(f"http://127.0.0.1:{served.port}/", width, height, dark, phone=name == "phone")
                await shown(tab, served)
                assert await tab.value("document.documentElement.scrollWidth <= innerWidth"), name
                await tab.screenshot(tmp_path / f"{name}.png")
                assert (tmp_path / f"{name}.png").stat().st_size > 20_000
            text = await tab.value("document.body.innerText")
            for words in (
                "the best that fits",
                "no answer",
                "the camera is off or unreachable",
                "7.3 W (estimated)",
                "limit 5.0 W",
                "~7.25 W",
                "profile night",
                "healthy",
                "int8-sparse 75 %",
            ):
                assert words in text, words
            assert text.count(EVIL) >= 4, "labels, reasons and events are shown as they are"
            assert await tab.value("document.querySelector('.chip').innerText") == "int8-sparse, 0 ms, late"
            assert await tab.value("document.title") == "edged"
            assert await tab.value("document.querySelectorAll('main img').length") == 2, "and none of them became HTML"
            assert EVIL in await tab.value("document.querySelector('.tile img').alt")
            assert await tab.value("document.querySelectorAll('img:not([alt])').length") == 0
            assert await tab.value("document.querySelector('canvas').getAttribute('aria-label')")
            assert await tab.value("document.getElementById('controls').hidden")
            assert await tab.value("document.querySelectorAll('.over').length") == 1, "power is above its limit"
            assert tab.complaints == []

    with serving() as served, ring() as made, living(served, made):
        asyncio.run(look(served))


def test_whoever_has_the_token_may_change_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "gateway.web").write_text(TOKEN)

    async def look(served: Served) -> None:
        async with browsing(tmp_path) as tab:
            await tab.open(f"http://127.0.0.1:{served.port}/", 800, 600)
            await tab.until("location.pathname === '/login' && document.readyState === 'complete'")
            await tab.value(f"document.querySelector('input').value = '{TOKEN}'; document.forms[0].submit()")
            await shown(tab, served)
            await tab.until("!document.getElementById('controls').hidden")
            await tab.until("document.querySelector('#pin select').options.length === 2")
            await tab.value("document.querySelector('#pin').requestSubmit()")
            await tab.until("document.getElementById('answer').innerText.includes('no daemon answers')")

    with serving(WebConfig(token=True)) as served, ring() as made, living(served, made):
        asyncio.run(look(served))


def test_a_gateway_that_stops_is_told_and_found_again(tmp_path: Path) -> None:
    chromium()

    async def look() -> None:
        async with browsing(tmp_path) as tab:
            with serving() as served:
                served.feed(state())
                await tab.open(f"http://127.0.0.1:{served.port}/", 800, 600)
                await tab.until("document.querySelectorAll('.tile').length === 2")
                await tab.until("document.getElementById('health').innerText === 'no daemon answers'")
            await tab.until("document.getElementById('health').innerText === 'not connected'")
            await tab.until("!document.getElementById('notice').hidden")

    asyncio.run(look())
