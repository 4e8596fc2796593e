"""`/camera/NAME.jpg` and `/camera/NAME.mjpg`: pictures for whoever asks, made once for all. On the thread "web"."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from aiohttp import web

from edged import clock
from edged.bus.schema import State
from edged.gateway.web.overview import Overview
from edged.gateway.web.pictures import Picture, Pictures
from edged.gateway.web.streams import Newest, Places, send

WAIT_S: Final = 1.0
"""For a new picture."""
FRESH_NS: Final = clock.NS_PER_S // 2
AGAIN_TURNS: Final = 5
GONE_TURNS: Final = 30
"""A stream ends when a camera that is not live gives no picture for so many waits."""
BOUNDARY: Final = "edged-picture"


class CameraViews:
    def __init__(self, overview: Overview, pictures: Pictures) -> None:
        self._overview, self._pictures = overview, pictures
        self._newest: dict[str, Newest[Picture]] = {}
        self.streams = Places(32, "streams of pictures are open")
        self._requests = Places(128, "requests wait for a picture")

    @property
    def refused(self) -> int:
        return self.streams.refused + self._requests.refused

    def put(self, picture: Picture) -> None:
        """A picture that was made."""
        self._newest.setdefault(picture.camera, Newest()).put(picture)

    def keep(self, state: State) -> None:
        """Forget the cameras that the daemon no longer has."""
        for name in self._newest.keys() - {one.camera for one in state.cameras}:
            del self._newest[name]

    def warm_up(self) -> None:
        """Somebody will look soon."""
        self._pictures.warm_up()

    async def one(self, request: web.Request) -> web.Response:
        """The newest picture. With `?after=N`: one with a larger number; 204 if none comes in time."""
        newest = self._wanted(request.match_info["name"])
        after = request.query.get("after", "")
        with self._requests.place():
            if after.isascii() and after.isdecimal() and len(after) < 16:
                if not await newest.after(int(after), WAIT_S):
                    return web.Response(status=204, headers=_headers(newest))
            elif newest.value is None or clock.mono_ns() - newest.value.made_ns > FRESH_NS:
                await newest.after(newest.number, WAIT_S)
        if newest.value is None or not self._is_live(request.match_info["name"]):
            raise self._none(request.match_info["name"])
        return web.Response(body=newest.value.jpeg, content_type="image/jpeg", headers=_headers(newest))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """One picture after another, as multipart/x-mixed-replace, until the reader or the camera leaves."""
        name = request.match_info["name"]
        self._wanted(name)
        with self.streams.place():
            response = web.StreamResponse(headers={"Cache-Control": "no-store"})
            response.content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
            await response.prepare(request)
            await send(request, response, f"--{BOUNDARY}\r\n".encode())
            waits = 0
            number = -1
            while waits < GONE_TURNS:
                newest = self._wanted(name)
                if number < 0:
                    number = newest.number  # not a picture of the last time that somebody looked
                if await newest.after(number, WAIT_S):
                    waits = 0
                else:
                    waits += 1
                    if waits % AGAIN_TURNS or not self._is_live(name):
                        continue
                    waits = 0  # the same picture again: nothing moves, or frames are rare
                if newest.value is None:
                    continue
                number, jpeg = newest.number, newest.value.jpeg
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                await send(request, response, head + jpeg + f"\r\n--{BOUNDARY}\r\n".encode())
        return response

    def _wanted(self, name: str) -> Newest[Picture]:
        """Have pictures of this camera made for the next seconds; an HTTP error where there can be none."""
        state = self._overview.state
        if state is not None and all(one.camera != name for one in state.cameras):
            raise web.HTTPNotFound(text="there is no such camera\n")
        if not self._pictures.want(name):
            raise self._none(name)
        return self._newest.setdefault(name, Newest())

    def _is_live(self, name: str) -> bool:
        """Whether its newest picture is what it sees."""
        state = self._overview.current
        return state is not None and any(one.camera == name and one.state == "live" for one in state.cameras)

    def _none(self, name: str) -> web.HTTPServiceUnavailable:
        state = self._overview.current
        reasons = [one.reason for one in state.cameras if one.camera == name] if state is not None else []
        why = reasons[0] if reasons else "the daemon does not answer"
        text = f"no picture of this camera: {why}; pictures need the daemon on this machine\n"
        return web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "1"})


def _headers(newest: Newest[Picture]) -> dict[str, str]:
    """What the page writes beside a picture; the variant as in a URL."""
    headers = {"Cache-Control": "no-store", "Edged-Number": str(newest.number)}
    result = None if newest.value is None else newest.value.result
    if result is not None:
        headers["Edged-Variant"] = quote(result.variant)
        headers["Edged-Age-Ms"] = f"{result.age_ms:.1f}"
        headers["Edged-Late"] = str(int(not result.deadline_met))
        headers["Edged-Captured"] = f"{result.t_capture:.3f}"
    return headers
