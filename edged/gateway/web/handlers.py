"""What is answered to each request, and to whom. On the thread "web"."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from edged import clock
from edged.bus.control_client import request as ask_daemon
from edged.errors import EdgedError
from edged.gateway.web.access import COOKIE, SESSION_S, Access
from edged.gateway.web.camera_views import CameraViews
from edged.gateway.web.overview import Overview, Update
from edged.gateway.web.streams import Newest, Places, send

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 4096
BODY_S: Final = 10.0
HEARTBEAT_S: Final = 5.0
FAILURE_EVERY_S: Final = 60.0
CHANGES: Final = ("profile", "pin", "set")
"""Operations of the daemon that whoever has the token may ask for."""
ASSETS: Final = {
    "page.css": "text/css", "page.js": "text/javascript", "plots.js": "text/javascript", "uplot.css": "text/css",
    "uplot.js": "text/javascript", "icon.svg": "image/svg+xml", "index.html": "text/html", "login.html": "text/html",
}  # fmt: skip
OPEN: Final = ("/healthz", "/login", "/page.css", "/icon.svg")
"""Paths for which no token is needed."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Server": "edged",
}

log = logging.getLogger(__name__)


class Handlers:
    def __init__(
        self, access: Access, overview: Overview, views: CameraViews, registry: CollectorRegistry, control: str | None
    ) -> None:
        """`control`: the daemon's endpoint for requests; None: the default."""
        self._access, self._overview, self._views = access, overview, views
        self._registry, self._control = registry, control
        self._updates: Newest[bytes] = Newest()
        self._update: Update | None = None
        self.pages = Places(64, "pages are open")
        self._requests = Places(8, "requests are being answered")
        self.wrong_tokens = self.unknown_hosts = 0
        self._threads = ThreadPoolExecutor(2, "web.request")
        self._failure_ns: int | None = None
        self._assets = {name: (resources.files(__package__) / "page" / name).read_bytes() for name in ASSETS}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_add_headers)
        add = app.router.add_get
        add("/", functools.partial(self._asset, "index.html"))
        for name in ASSETS:
            if not name.endswith(".html"):
                add(f"/{name}", functools.partial(self._asset, name))
        add("/login", functools.partial(self._asset, "login.html"))
        app.router.add_get("/events", self._events, allow_head=False)
        add("/healthz", self._health)
        add("/metrics", self._metrics)
        add(r"/camera/{name:[a-z0-9_-]+}.jpg", self._views.one)
        app.router.add_get(r"/camera/{name:[a-z0-9_-]+}.mjpg", self._views.stream, allow_head=False)
        app.router.add_post("/login", self._login)
        app.router.add_post("/control", self._change)
        return app

    def updated(self, update: Update) -> None:
        """A new state of the daemon; it is encoded only while a page is open."""
        self._update = update
        self._views.keep(update.state)
        if self.pages.taken:
            self._updates.put(self._overview.encode(update))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Names, tokens and failures, before and behind every handler."""
        if request.path != "/healthz" and not self._access.is_known_host(request.headers.get("Host")):
            self.unknown_hosts += 1
            text = "without [web] token or TLS this page answers to localhost and 127.0.0.1 only\n"
            return web.Response(status=421, text=text)
        allowed = self._access.is_allowed(request.headers.get("Authorization"), request.cookies.get(COOKIE))
        if not allowed and request.path not in OPEN:
            if request.path == "/":
                raise web.HTTPSeeOther("/login")
            self.wrong_tokens += "Authorization" in request.headers
            text = "this needs the token: Authorization: Bearer TOKEN, or /login in a browser\n"
            return web.Response(status=401, text=text, headers={"WWW-Authenticate": "Bearer"})
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise  # an answer; a reader that has left
        except Exception:
            now_ns = clock.mono_ns()
            if self._failure_ns is None or now_ns - self._failure_ns > FAILURE_EVERY_S * clock.NS_PER_S:
                self._failure_ns = now_ns
                log.exception("a request for %.100s failed", request.path)
            return web.Response(status=500, text="the gateway failed at this request; its log says more\n")

    async def _asset(self, name: str, request: web.Request) -> web.Response:
        body = self._assets[name]
        tag = hashlib.sha256(body).hexdigest()[:16]
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if any(given.value in (tag, "*") for given in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if name == "index.html":
            self._views.warm_up()
        return web.Response(body=body, content_type=ASSETS[name], charset="utf-8", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `history` once, `update` with each state, `silent` while the daemon does not answer."""
        with self.pages.place():
            response = web.StreamResponse(headers={"Cache-Control": "no-store", "Content-Type": "text/event-stream"})
            await response.prepare(request)
            welcome = {"may_change": self._access.may_change}
            await send(request, response, _event("welcome", json.dumps(welcome).encode()))
            await send(request, response, _event("history", self._overview.history()))
            number = self._updates.number
            if self._update is not None and self._overview.current is not None:
                await send(request, response, _event("update", self._overview.encode(self._update)))
            while True:
                if await self._updates.after(number, HEARTBEAT_S) and self._updates.value is not None:
                    number = self._updates.number
                    await send(request, response, _event("update", self._updates.value))
                else:
                    await send(request, response, _event("silent", b"{}"))

    async def _health(self, request: web.Request) -> web.Response:
        state = self._overview.current
        if state is None:
            return web.Response(status=503, text="the daemon does not answer\n")
        if not state.healthy:
            return web.Response(status=503, text="the daemon is stuck: a stage has work and makes no progress\n")
        return web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        text = await self._on_thread(lambda: generate_latest(self._registry))
        return web.Response(body=text, content_type="text/plain", charset="utf-8")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        """A browser gives the token once, and gets a cookie for it."""
        form = await _within(request.post())
        token = form.get("token")
        if not isinstance(token, str) or not self._access.is_token(token):
            self.wrong_tokens += 1
            raise web.HTTPSeeOther("/login?wrong")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            COOKIE,
            self._access.new_session(),
            max_age=SESSION_S,
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def _change(self, request: web.Request) -> web.Response:
        """Pass a request on to the daemon: {"op": "set", "power_w": 8}, as its control socket takes it."""
        if not self._access.may_change:
            raise web.HTTPForbidden(text="this page only reads: set token = true in [web] to change anything here\n")
        if request.content_type != "application/json":  # what a form of another site cannot send
            raise web.HTTPUnsupportedMediaType(text="send a JSON object, as application/json\n")
        try:
            asked = json.loads(await _within(request.read()))
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or asked.get("op") not in CHANGES:
            raise web.HTTPBadRequest(text=f'send a JSON object with "op", one of: {", ".join(CHANGES)}\n')
        return web.json_response(await self._on_thread(lambda: self._ask(asked)))

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """On a thread of its own. The daemon checks what is asked."""
        arguments = {key: value for key, value in asked.items() if key != "op"}
        try:
            if {"endpoint", "timeout_s", "curve"} & arguments.keys():
                raise EdgedError("the request has a key that no operation has")
            return ask_daemon(str(asked["op"]), self._control, **arguments)
        except EdgedError as error:
            return {"ok": False, "error": error.message, "hint": error.hint}

    async def _on_thread(self, function: Callable[[], Any]) -> Any:
        with self._requests.place():
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def _within(body: Awaitable[Any]) -> Any:
    """The body of a request, which must not take forever to come."""
    try:
        return await asyncio.wait_for(body, BODY_S)
    except asyncio.TimeoutError:
        raise web.HTTPRequestTimeout(text="the request did not come in time\n") from None


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
