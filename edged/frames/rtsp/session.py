"""A playing RTSP session: set up over TCP or UDP, kept alive, its packets as access units.

In: a camera's source and transport. Out: access units of its first video track. Runs in the camera's child process.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections import deque
from typing import Final, Literal
from urllib.parse import urlsplit

from edged import clock
from edged.clock import NS_PER_MS, NS_PER_S
from edged.errors import EdgedError
from edged.frames.http_auth import refusal
from edged.frames.rtsp.connection import Response, RtspConnection
from edged.frames.rtsp.depacketiser import AccessUnit, Depacketiser
from edged.frames.rtsp.rtp import RtpPacket, SenderReport, SequenceTracker, parse_rtcp, parse_rtp, receiver_report
from edged.frames.rtsp.sdp import VideoTrack, resolve, video_track
from edged.frames.video.access_unit import Codec
from edged.uri import SourceUri

Transport = Literal["tcp", "udp"]

CODECS: Final[dict[str, Codec]] = {"H264": "h264", "H265": "hevc"}
_MAX_REDIRECTS: Final = 3
_PERIODS: Final = 6  # of the rate that the camera describes: so long it may be silent
_REPORT_S: Final = 5
_TURN_NS: Final = 500 * NS_PER_MS
_UDP_BUFFER: Final = 2 << 20
_LIFETIME: Final = re.compile(r"\d{1,6}")
_CHANNELS: Final = re.compile(r"interleaved=(\d+)-(\d+)")
_SERVER_PORTS: Final = re.compile(r"server_port=(\d+)(?:-(\d+))?")
_SERVER: Final = re.compile(r"source=([^;\s]+)")
_HINTS: Final = {
    401: "",
    403: "the camera does not let this user see the stream",
    404: "check the path in the URL: the camera has no stream there",
    453: "the camera's network limit is reached: lower its bit rate, or end other viewers",
    461: 'set transport = "udp" or "tcp", whichever it is not now',
    503: "the camera has as many viewers as it allows: end one",
}


class UnknownCodecError(EdgedError):
    """The camera's video is neither H.264 nor H.265."""


class RtspSession:
    """Plays from the moment it is made. Raises EdgedError, with a sentence, whenever the camera fails."""

    def __init__(self, uri: SourceUri, transport: Transport, open_s: float, read_s: float) -> None:
        self._read_s, self._transport = read_s, transport
        self._connection, described, self._url = _described(uri, open_s)
        self._datagrams: tuple[socket.socket, socket.socket] | None = None
        try:
            track = video_track(described.body)
            if track is None:
                raise EdgedError("the camera offers no video", "choose its video stream in the URL")
            if track.codec not in CODECS:
                raise UnknownCodecError(f"video of the codec {track.codec or 'unknown'}")
            self.track: VideoTrack = track
            if track.fps is not None:
                self._read_s = max(read_s, _PERIODS / track.fps)
            base = described.header("content-base") or described.header("content-location") or self._url
            self._control = resolve(base, track.session_control)
            self._set_up(resolve(base, track.control), uri)
            _accepted(self._connection.request("PLAY", self._control, {"Range": "npt=0.000-"}), "PLAY", uri)
        except EdgedError:
            self.close()
            raise
        self._tracker = SequenceTracker(reorders=transport == "udp")
        self._depacketiser = Depacketiser(CODECS[track.codec])
        self._units: deque[AccessUnit] = deque()
        self._last_report: tuple[SenderReport, int] | None = None
        self._heard_ns = clock.mono_ns()
        self._next_report_ns = self._heard_ns + NS_PER_S
        self._next_alive_ns = self._heard_ns + int(self._alive_s * NS_PER_S)
        self._others = False
        self.bytes = 0
        self.packets = 0

    @property
    def lost_packets(self) -> int:
        return self._tracker.lost

    def wall_ns(self, timestamp: int) -> int | None:
        """Unix time of an RTP time stamp by the camera's clock; None before its first sender report."""
        if self._last_report is None or self._last_report[0].ssrc != self._tracker.ssrc:
            return None
        report = self._last_report[0]
        ticks = (timestamp - report.timestamp + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
        return report.unix_ns + ticks * NS_PER_S // self.track.clock_hz

    # ---- setting up ----------------------------------------------------------------------------------------------

    def _set_up(self, url: str, uri: SourceUri) -> None:
        if self._transport == "tcp":
            wanted = "RTP/AVP/TCP;unicast;interleaved=0-1"
        else:
            self._datagrams = _datagram_pair(self._connection.local)
            port = self._datagrams[0].getsockname()[1]
            wanted = f"RTP/AVP;unicast;client_port={port}-{port + 1}"
        answer = _accepted(self._connection.request("SETUP", url, {"Transport": wanted}), "SETUP", uri)
        session, *parameters = answer.header("session").split(";")
        self._connection.session = session.strip()
        lifetime = next((p for p in parameters if p.strip().startswith("timeout=")), "timeout=60").partition("=")[2]
        self._alive_s = max(1.0, min(30.0, float(lifetime) / 2)) if _LIFETIME.fullmatch(lifetime.strip()) else 30.0
        chosen = answer.header("transport")
        channels = _CHANNELS.search(chosen)
        self._channels = (int(channels.group(1)), int(channels.group(2))) if channels else (0, 1)
        if self._datagrams is not None:
            ports = _SERVER_PORTS.search(chosen)
            source = _SERVER.search(chosen)
            self._aim(ports, source.group(1) if source else self._connection.peer)

    def _aim(self, ports: re.Match[str] | None, source: str) -> None:
        """Take datagrams from the camera alone, and open the way for them through a NAT or firewall."""
        assert self._datagrams is not None
        if ports is None:
            return
        first = int(ports.group(1))
        for end, port in zip(self._datagrams, (first, int(ports.group(2) or first + 1)), strict=True):
            with contextlib.suppress(OSError):  # a source that is no address: then any may send
                end.connect((source, port))
                end.send(b"\x80\x60" + bytes(10) if end is self._datagrams[0] else b"\x80\xc9\0\1" + bytes(4))

    # ---- playing -------------------------------------------------------------------------------------------------

    def next_unit(self) -> AccessUnit:
        """Wait for the next access unit."""
        while not self._units:
            self._turn()
        return self._units.popleft()

    def _turn(self) -> None:
        now_ns = clock.mono_ns()
        self._keep_alive(now_ns)
        deadline_ns = min(now_ns + _TURN_NS, self._heard_ns + int(self._read_s * NS_PER_S))
        before = self.packets
        if self._datagrams is None:
            self._receive_tcp(deadline_ns)
        else:
            self._receive_udp(deadline_ns)
        now_ns = clock.mono_ns()
        if self.packets != before:
            self._heard_ns = now_ns
        elif now_ns - self._heard_ns >= self._read_s * NS_PER_S:
            raise self._silence()

    def _silence(self) -> EdgedError:
        if self.packets:
            return EdgedError(f"no packet for {self._read_s:.0f} s", "if this camera is slower than that, set its fps")
        if self._others:
            return EdgedError(
                f"packets come, and none of them is of the video that the camera offers ({self.track.codec}, "
                f"payload type {self.track.payload_type})",
                "choose another of its streams in the URL",
            )
        if self._datagrams is not None:
            return EdgedError(
                "the camera answers, and none of its packets arrives by UDP",
                'open the way through the firewall, or set transport = "tcp"',
            )
        return EdgedError(f"the camera answers PLAY, and no packet comes for {self._read_s:.0f} s")

    def _receive_tcp(self, deadline_ns: int) -> None:
        connection, (media, control) = self._connection, self._channels
        if not connection.wait(deadline_ns):
            return
        packets = connection.packets
        while packets and not self._units:
            channel, data = packets.popleft()
            if channel == media:
                self._take(parse_rtp(data, connection.arrival_ns, connection.fresh))
            elif channel == control:
                self._control_packet(data)
            else:
                self._others = True

    def _receive_udp(self, deadline_ns: int) -> None:
        assert self._datagrams is not None
        data_end, control_end = self._datagrams
        fresh = True
        while True:
            try:
                data = data_end.recv(65_536)
            except OSError:
                break
            self._take(parse_rtp(data, clock.mono_ns(), fresh))
            fresh = False
            if self._units:
                return
        ready = select.poll()
        for end in (data_end, control_end, self._connection):
            ready.register(end, select.POLLIN)
        for descriptor, _ in ready.poll(max(0, deadline_ns - clock.mono_ns()) / NS_PER_MS):
            if descriptor == control_end.fileno():
                with contextlib.suppress(OSError):
                    self._control_packet(control_end.recv(65_536))
            elif descriptor == self._connection.fileno():
                self._connection.absorb()

    def _take(self, packet: RtpPacket | None) -> None:
        if packet is None or packet.payload_type != self.track.payload_type:
            self._others = True
            return
        self.packets += 1
        self.bytes += len(packet.payload)
        for ready, gap in self._tracker.push(packet):
            ended = self._depacketiser.push(ready, gap)
            if ended:
                self._units += ended

    def _control_packet(self, data: bytes) -> None:
        report, bye = parse_rtcp(data)
        if report is not None:
            self._last_report = report, clock.mono_ns()
        if bye:
            raise EdgedError("the camera ended the stream")

    def _keep_alive(self, now_ns: int) -> None:
        if now_ns >= self._next_report_ns:
            self._next_report_ns = now_ns + _REPORT_S * NS_PER_S
            last, at_ns = self._last_report or (None, now_ns)
            report = receiver_report(self._tracker, last, now_ns - at_ns)
            if self._datagrams is None:
                self._connection.send(bytes([0x24, self._channels[1]]) + len(report).to_bytes(2, "big") + report)
            else:
                with contextlib.suppress(OSError):  # not aimed, or refused for now
                    self._datagrams[1].send(report)
        if now_ns >= self._next_alive_ns:
            self._next_alive_ns = now_ns + int(self._alive_s * NS_PER_S)
            self._connection.send_request(self._connection.keep_alive_method, self._control)

    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""
        with contextlib.suppress(EdgedError):
            if self._connection.session:
                self._connection.send_request("TEARDOWN", self._control)
        self._connection.close()
        for end in self._datagrams or ():
            end.close()


def _described(uri: SourceUri, open_s: float) -> tuple[RtspConnection, Response, str]:
    """(the connection, its answer to DESCRIBE, the URL that gave it), redirects followed within rtsp and rtsps."""
    for _ in range(_MAX_REDIRECTS + 1):
        connection = RtspConnection(uri, open_s)
        try:
            connection.learn_methods(uri.target)
            answer = connection.request("DESCRIBE", uri.target, {"Accept": "application/sdp"})
            location = answer.header("location")
            if answer.status not in (301, 302, 303, 305, 307) or not location:
                return connection, _accepted(answer, "DESCRIBE", uri), uri.target
        except EdgedError:
            connection.close()
            raise
        connection.close()
        target = urlsplit(location)
        if target.scheme not in ("rtsp", "rtsps") or not target.hostname:
            raise EdgedError("the camera redirects to something that is not RTSP")
        same = target.hostname == urlsplit(uri.target).hostname
        host = target.netloc.rpartition("@")[2]
        shown = target._replace(netloc=host).geturl()
        uri = SourceUri("rtsp", shown, uri.options, uri.user if same else None, uri.password if same else None)
    raise EdgedError(f"the camera redirects more than {_MAX_REDIRECTS} times")


def _accepted(answer: Response, method: str, uri: SourceUri) -> Response:
    if answer.status == 200:
        return answer
    if answer.status == 401:
        raise refusal(uri)
    reason = "".join(c if c.isprintable() else " " for c in answer.reason)[:60]
    raise EdgedError(
        f"the camera answers {method} with {answer.status} {reason}".rstrip(), _HINTS.get(answer.status, "")
    )


def _datagram_pair(address: str) -> tuple[socket.socket, socket.socket]:
    """Two UDP sockets on an even port and the one after it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(50):
        first, second = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):  # the port after it is taken
            first.bind((address, 0))
            port = first.getsockname()[1]
            if port % 2 == 0:
                second.bind((address, port + 1))
                for end in (first, second):
                    end.setblocking(False)
                first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER)
                return first, second
        first.close()
        second.close()
    raise EdgedError("no two neighbouring UDP ports are free")
