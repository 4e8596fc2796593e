"""An RTSP camera in pure Python, with every fault a real one has: for tests, benchmarks and manual runs.

H.264 or H.265 over RTP, interleaved in the RTSP connection or by UDP; RTCP sender reports with a clock that can be
wrong. Sends a prepared clip, so that four 720p cameras cost a few per cent of a core. As a script:

    python -m tests.support.rtsp --port 8554 --width 1280 --height 720
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.support.clips import AccessUnits, access_units

_NTP_EPOCH = 2208988800
_SSRC = 0xED6E0001
_MTU = 1400
_PAYLOAD_TYPE = 96
_CLOCK_HZ = 90_000


@dataclass
class Faults:
    """What the camera does wrong right now; set at any time from any thread."""

    stalled: bool = False  # connected, and silent
    mute: bool = False  # accepts connections and never answers
    loss: float = 0.0  # share of RTP packets not sent
    garbage: float = 0.0  # share of RTP payloads replaced by noise
    skew_s: float = 0.0  # of the camera's clock
    reports: bool = True  # RTCP sender reports
    lose: Callable[[int], bool] = lambda frame: False  # whether the middle packet of this frame is not sent
    swap: bool = False  # each second packet of a frame goes before the first
    markers: Literal["last", "each NAL unit", "none"] = "last"
    headers_in_stream: bool = True  # parameter sets; else only in the description
    random: random.Random = field(default_factory=lambda: random.Random(1))


class RtspCamera:
    """Serves one clip to any number of clients at rtsp://127.0.0.1:PORT/cam. Use as a context manager."""

    def __init__(
        self,
        clip: AccessUnits,
        fps: float = 30,
        port: int = 0,
        user: str | None = None,
        password: str = "",
        codec: str = "h264",
        digest: bool = False,
        first: int = 0,
    ) -> None:
        """`first`: where in the clip each connection begins. `digest`: ask for Digest instead of Basic."""
        self.fps, self.faults, self.codec = fps, Faults(), codec
        self._digest, self._first = digest, first
        self.sent_ns: dict[int, int] = {}
        """monotonic time at which each position of the clip was last handed to the kernel"""
        self._clip, self._user, self._password, self._port = clip, user, password, port
        self._clients: set[socket.socket] = set()
        self._ways: dict[socket.socket, _Way] = {}
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self.connections = 0
        self.sent = 0  # access units, to all clients

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/cam"

    def __enter__(self) -> RtspCamera:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> RtspCamera:
        """Listen; after a stop, again on the same port."""
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """Close the port and all connections, and wait for the threads."""
        self._stopping.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop_clients()
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()

    def drop_clients(self, reset: bool = False) -> None:
        """Close all connections, in order or (reset) with a TCP RST."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                if reset:
                    # the reader then sees the end and closes, which with this option sends the reset
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.shutdown(socket.SHUT_RD)
                else:
                    client.shutdown(socket.SHUT_RDWR)

    def play(self, clip: AccessUnits) -> None:
        """Send another clip from now on, in the same connections: a camera whose settings were changed."""
        self._clip = clip

    # ---- the protocol --------------------------------------------------------------------------------------------

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._clients.add(client)
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        lock = threading.Lock()
        playing = False
        self._ways[client] = _Way(client, lock)
        try:
            with client, client.makefile("rb") as reader:
                while (request := self._request(reader)) is not None:
                    method, headers = request
                    while self.faults.mute:
                        if self._stopping.wait(0.02):
                            return
                    with lock:
                        client.sendall(self._answer(method, headers, self._ways[client]))
                    if method == "PLAY" and not playing:
                        playing = True
                        self._spawn(self._send, self._ways[client])
                    if method == "TEARDOWN":
                        return
        except (OSError, ValueError):
            pass  # the client is gone, or we closed it
        finally:
            self._clients.discard(client)
            self._ways.pop(client).close()

    def _request(self, reader: object) -> tuple[str, dict[str, str]] | None:
        """The next RTSP request; the client's RTCP in between is skipped."""
        while True:
            first = reader.read(1)  # type: ignore[attr-defined]
            if not first:
                return None
            if first != b"$":
                break
            _, length = struct.unpack("!BH", reader.read(3))  # type: ignore[attr-defined]
            reader.read(length)  # type: ignore[attr-defined]
        method = (first + reader.readline()).decode().split()[0]  # type: ignore[attr-defined]
        headers = {}
        while line := reader.readline().decode().strip():  # type: ignore[attr-defined]
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        return method, headers

    def _welcome(self, method: str, authorization: str) -> bool:
        if not self._digest:
            token = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            return authorization == f"Basic {token}"
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', authorization))

        def digest(*parts: str) -> str:
            return hashlib.md5(":".join(parts).encode()).hexdigest()

        secret = digest(self._user or "", "camera", self._password)
        wanted = digest(
            secret, "n1", given.get("nc", ""), given.get("cnonce", ""), "auth", digest(method, given.get("uri", ""))
        )
        return given.get("response") == wanted

    def _answer(self, method: str, headers: dict[str, str], way: _Way) -> bytes:
        sequence = headers.get("cseq", "0")
        allowed = self._user is None or method == "OPTIONS" or self._welcome(method, headers.get("authorization", ""))
        if not allowed:
            scheme = 'Digest realm="camera", nonce="n1", qop="auth"' if self._digest else 'Basic realm="camera"'
            challenge = f"WWW-Authenticate: {scheme}"
            return f"RTSP/1.0 401 Unauthorized\r\nCSeq: {sequence}\r\n{challenge}\r\n\r\n".encode()
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif method == "DESCRIBE":
            body = self._sdp()
            extra = f"Content-Base: {self.url}/\r\nContent-Type: application/sdp\r\n"
        elif method == "SETUP":
            ports = re.search(r"client_port=(\d+)-(\d+)", headers.get("transport", ""))
            if ports:
                mine = way.by_udp(int(ports.group(1)), int(ports.group(2)))
                transport = f"RTP/AVP;unicast;{ports.group(0)};server_port={mine[0]}-{mine[1]};ssrc={_SSRC:08X}"
            elif "TCP" in headers.get("transport", ""):
                transport = f"RTP/AVP/TCP;unicast;interleaved=0-1;ssrc={_SSRC:08X}"
            else:
                return f"RTSP/1.0 461 Unsupported Transport\r\nCSeq: {sequence}\r\n\r\n".encode()
            extra = f"Transport: {transport}\r\nSession: 1;timeout=60\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\nRange: npt=now-\r\n"
        return f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def _sdp(self) -> str:
        def sets(*kinds: int) -> list[str]:
            found = (next(n for unit in self._clip for n in unit if kind_of(n, self.codec) == kind) for kind in kinds)
            return [base64.b64encode(nal).decode() for nal in found]

        if self.codec == "h264":
            sps, pps = sets(7, 8)
            profile = base64.b64decode(sps)[1:4].hex()
            fmtp = f"packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sps},{pps}"
        else:
            vps, sps, pps = sets(32, 33, 34)
            fmtp = f"sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}"
        name = "H264" if self.codec == "h264" else "H265"
        lines = (
            "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "t=0 0", "a=control:*",
            f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}", "c=IN IP4 0.0.0.0", f"a=rtpmap:{_PAYLOAD_TYPE} {name}/{_CLOCK_HZ}",
            f"a=framerate:{self.fps}", f"a=fmtp:{_PAYLOAD_TYPE} {fmtp}", "a=control:track0", "",
        )  # fmt: skip
        return "\r\n".join(lines)

    # ---- the pictures --------------------------------------------------------------------------------------------

    def _send(self, way: _Way) -> None:
        stream = _RtpStream(self.faults, self.codec)
        clip, position, begin = self._clip, self._first, time.monotonic()
        frame = 0
        last_report = -1e9
        with contextlib.suppress(OSError):
            while True:
                due = begin + frame / self.fps
                if self._stopping.wait(max(0.0, due - time.monotonic())):
                    return
                while self.faults.stalled:
                    if self._stopping.wait(0.02):
                        return
                    begin = time.monotonic() - frame / self.fps
                if clip is not self._clip:
                    clip, position = self._clip, 0
                timestamp = int(frame * _CLOCK_HZ / self.fps) + 1_000_000 & 0xFFFFFFFF
                reports = []
                if self.faults.reports and due - last_report >= 1:
                    reports, last_report = [stream.report(timestamp)], due
                packets = stream.packets(clip[position % len(clip)], timestamp, frame)
                self.sent_ns[position % len(clip)] = time.monotonic_ns()
                way.send(reports, packets)
                self.sent += 1
                frame, position = frame + 1, position + 1


class _Way:
    """How a client gets its packets: in its RTSP connection, or by UDP."""

    def __init__(self, client: socket.socket, lock: threading.Lock) -> None:
        self._client, self._lock = client, lock
        self._ends: tuple[socket.socket, ...] = ()

    def by_udp(self, *ports: int) -> list[int]:
        """Send to these ports of the client from now on; returns ours."""
        self._ends = tuple(socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports)
        for end, port in zip(self._ends, ports, strict=True):
            end.bind(("127.0.0.1", 0))
            end.connect(("127.0.0.1", port))
        return [end.getsockname()[1] for end in self._ends]

    def send(self, reports: list[bytes], packets: list[bytes]) -> None:
        if self._ends:
            for end, group in zip(self._ends, (packets, reports), strict=True):
                for packet in group:
                    end.send(packet)
            return
        framed = [(1, report) for report in reports] + [(0, packet) for packet in packets]
        data = b"".join(struct.pack("!cBH", b"$", channel, len(packet)) + packet for channel, packet in framed)
        with self._lock:
            self._client.sendall(data)

    def close(self) -> None:
        for end in self._ends:
            end.close()


class _RtpStream:
    """RTP and RTCP packets of one client's stream."""

    def __init__(self, faults: Faults, codec: str) -> None:
        self._faults, self._codec = faults, codec
        self._sequence = faults.random.randrange(65536)
        self._packets = self._bytes = 0

    def report(self, timestamp: int) -> bytes:
        """A sender report: this RTP time is now, by the camera's clock."""
        now = time.time() + self._faults.skew_s + _NTP_EPOCH
        fraction = int((now % 1) * 2**32) & 0xFFFFFFFF
        report = struct.pack(
            "!BBHIIIIII", 0x80, 200, 6, _SSRC, int(now), fraction, timestamp, self._packets, self._bytes
        )
        return report + struct.pack("!BBHIBB", 0x81, 202, 3, _SSRC, 1, 2) + b"ed\0\0\0\0"

    def packets(self, unit: list[bytes], timestamp: int, frame: int) -> list[bytes]:
        """One access unit, cut to packets; some lost or spoilt, as the faults say."""
        faults, found = self._faults, []
        if not faults.headers_in_stream:
            sets = (7, 8) if self._codec == "h264" else (32, 33, 34)
            unit = [nal for nal in unit if kind_of(nal, self._codec) not in sets]
        pieces = [(piece, last) for nal in unit for piece, last in _fragments(nal, self._codec)]
        missing = len(pieces) // 2 if faults.lose(frame) else -1
        for index, (piece, ends_nal) in enumerate(pieces):
            self._sequence = self._sequence + 1 & 0xFFFF
            if index == missing or (faults.loss and faults.random.random() < faults.loss):
                continue
            if faults.garbage and faults.random.random() < faults.garbage:
                piece = piece[:2] + faults.random.randbytes(max(0, len(piece) - 2))
            ends = {"last": index == len(pieces) - 1, "each NAL unit": ends_nal, "none": False}[faults.markers]
            kind = _PAYLOAD_TYPE | (0x80 if ends else 0)
            found.append(struct.pack("!BBHII", 0x80, kind, self._sequence, timestamp, _SSRC) + piece)
            self._packets, self._bytes = self._packets + 1, self._bytes + len(piece)
        if faults.swap:
            found = [p for i in range(0, len(found), 2) for p in reversed(found[i : i + 2])]
        return found


def kind_of(nal: bytes, codec: str) -> int:
    """The type of a NAL unit."""
    return nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63


def _fragments(nal: bytes, codec: str) -> list[tuple[bytes, bool]]:
    """A NAL unit as RTP payloads, each with whether it is the last: itself, or fragments (RFC 6184, RFC 7798)."""
    if len(nal) <= _MTU:
        return [(nal, True)]
    skip = 1 if codec == "h264" else 2
    chunks = [nal[i : i + _MTU] for i in range(skip, len(nal), _MTU)]
    found = []
    for i, chunk in enumerate(chunks):
        last = i == len(chunks) - 1
        flags = kind_of(nal, codec) | (0x80 if i == 0 else 0) | (0x40 if last else 0)
        head = bytes([nal[0] & 0xE0 | 28]) if codec == "h264" else bytes([nal[0] & 0x81 | 49 << 1, nal[1]])
        found.append((head + bytes([flags]) + chunk, last))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8554)
    parser.add_argument("--clip", help="an H.264 file to send instead of the generated picture")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--skew-s", type=float, default=0.0, help="how far the camera's clock is ahead")
    arguments = parser.parse_args()
    clip = (
        units_of_file(arguments.clip)
        if arguments.clip
        else access_units(arguments.width, arguments.height, arguments.fps, 60, 4_000_000)
    )
    with RtspCamera(clip, arguments.fps, arguments.port) as camera:
        camera.faults.skew_s = arguments.skew_s
        print(f"ready: {camera.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def units_of_file(path: str) -> AccessUnits:
    """The H.264 access units of a video file, parameter sets first."""
    import av
    from av.bitstream import BitStreamFilterContext

    with av.open(path) as container:
        stream = container.streams.video[0]
        annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [out for packet in container.demux(stream) if packet.size for out in annex_b.filter(packet)]
    units = [bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") for packet in packets]
    return [[nal for nal in unit if nal and nal[0] & 31 != 6] for unit in units]


if __name__ == "__main__":
    main()
