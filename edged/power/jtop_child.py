"""The child process that talks to jtop.service: the only file that imports jetson-stats.

    python -m edged.power.jtop_child SOCKET INTERVAL_S

JSON lines out on stdout (`Reading`, `Trouble`), requests in on stdin (`SetRequest`). It ends on any failure, when the
service gives it nothing new for a while, and when its parent has ended; the parent starts another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final, TextIO

import msgspec

from edged import clock
from edged.errors import EdgedError
from edged.power.jtop import PowerMode, Reading, SetRequest, Trouble

PATIENCE_S: Final = 5.0
PATIENCE_INTERVALS: Final = 5
WATCH_EVERY_S: Final = 0.5
INSTALL: Final = "install it into edged's environment: pip install 'jetson-stats>=7.2,<7.3'"
RESTART: Final = "sudo systemctl restart jtop"


class Session:
    """One connection to the service."""

    def __init__(self, out: TextIO, socket: str, interval_s: float) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._fresh_ns = clock.mono_ns()
        self._patience_s = max(PATIENCE_S, PATIENCE_INTERVALS * interval_s)
        # start() and the proxies wait without a limit: this process ends in any case
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            import jtop.service
            from jtop import jtop as client
        except ImportError as error:
            raise EdgedError(f"jetson-stats cannot be imported: {error}", INSTALL) from error
        jtop.service.JTOP_PIPE = socket
        # else it starts a dozen programs and loads cuDNN and TensorRT for their versions
        client._load_jetson_libraries = lambda jtop: None
        self._jtop: Any = client(interval=interval_s)
        self._jtop.start()
        if self._jtop.interval > interval_s:  # another client connected first, and its rate is that of all
            self._jtop._interval = self._jtop.interval
            self._patience_s = max(PATIENCE_S, PATIENCE_INTERVALS * self._jtop.interval)

    def run(self) -> None:
        """Readings until they end, which is an EdgedError."""
        before = None
        threading.Thread(target=self._apply_requests, daemon=True).start()
        while self._jtop.ok():
            uptime = self._jtop.uptime
            if uptime == before:  # the same sample once more: the service's own sampler stands still
                continue
            before = uptime
            self._fresh_ns = clock.mono_ns()
            self.send(reading_of(self._jtop, self._fresh_ns))
        raise EdgedError("jtop.service has stopped answering", RESTART)

    def send(self, line: Reading | Trouble) -> None:
        with self._lock:
            self._out.write(msgspec.json.encode(line).decode() + "\n")
            self._out.flush()

    def end(self, problem: str, hint: str = "") -> None:
        try:
            self.send(Trouble(problem[:1000], hint))
        finally:
            os._exit(1)  # the library's threads must not hold this process

    def _watch(self) -> None:
        while clock.mono_ns() - self._fresh_ns < self._patience_s * clock.NS_PER_S:
            clock.sleep_s(WATCH_EVERY_S)
        self.end(f"jtop.service gave nothing new for {self._patience_s:g} s", RESTART)

    def _apply_requests(self) -> None:
        for text in sys.stdin.buffer:
            try:
                apply(self._jtop, msgspec.json.decode(text, type=SetRequest))
            except Exception as error:  # the parent must learn of any failure
                self.end(f"jtop refuses: {error}")
        os._exit(0)  # the parent has ended


def apply(jtop: Any, request: SetRequest) -> None:
    if request.mode is not None:
        jtop.nvpmodel = request.mode  # never with force: that answers YES to "reboot now?"
    if request.clocks is not None:
        jtop.jetson_clocks = request.clocks
    if request.fan is not None:
        jtop.fan.profile = request.fan


def reading_of(jtop: Any, now_ns: int) -> Reading:
    """What the library has, in watts and degrees."""
    power = jtop.power or {}
    rails = {name: _watts(rail) for name, rail in power.get("rail", {}).items()}
    total = power.get("tot", {})
    if total.get("name"):  # without a name it is the sum of what could be read
        rails[total["name"]] = _watts(total)
    modes = jtop.nvpmodel
    clocks = jtop.jetson_clocks
    fan = next(iter(jtop.fan), None) if jtop.fan else None  # boards have one
    return Reading(
        mono_ns=now_ns,
        rails_w=rails,
        temperatures_c={
            name: float(t["temp"]) if t.get("online") else None for name, t in (jtop.temperature or {}).items()
        },
        modes=[]
        if modes is None
        else [PowerMode(str(name), bool(ok)) for name, ok in zip(modes.models, modes.status, strict=True)],
        mode=None if modes is None else modes.models.index(modes.name) if modes.name in modes.models else None,
        mode_changing=modes is not None and bool(modes.is_running()),
        clocks=None if clocks is None else str(clocks.status),
        fan=None if fan is None else jtop.fan.get_profile(fan),
        fans=[] if fan is None else [str(profile) for profile in jtop.fan.all_profiles(fan)],
    )


def _watts(rail: Mapping[str, Any]) -> float | None:
    milliwatts = rail.get("power")
    return milliwatts / 1000 if isinstance(milliwatts, int | float) else None


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon; its end closes our stdin
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints must not get between the lines
    socket, interval_s = arguments[0], float(arguments[1])
    problem, hint = "jtop ended", RESTART
    try:
        Session(out, socket, interval_s).run()
    except EdgedError as error:
        problem, hint = error.message, error.hint
    except BaseException as error:  # JtopException, EOFError, BrokenPipeError, KeyError...: each needs a new child
        problem, hint = _explained(error)
    out.write(msgspec.json.encode(Trouble(problem[:1000], hint)).decode() + "\n")
    out.flush()
    os._exit(1)


def _explained(error: BaseException) -> tuple[str, str]:
    text = " ".join(str(error).split()) or type(error).__name__
    if "can't access" in text:
        return "this user may not talk to jtop.service", "sudo usermod -aG jtop edged && sudo systemctl restart edged"
    if "not active" in text:
        return "jtop.service does not run", "sudo systemctl enable --now jtop"
    if "Mismatch version" in text:
        return text, "install the same jetson-stats for edged as for the service"
    return f"{type(error).__name__}: {text}", RESTART


if __name__ == "__main__":
    main(sys.argv[1:])
