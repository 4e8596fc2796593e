"""An RTSP camera in pure Python, with every fault a real one has: for tests, benchmarks and manual runs.

H.264 over RTP interleaved in the RTSP connection, RTCP sender reports with a clock that can be wrong. Sends a prepared
clip, so that four 720p cameras cost a few per cent of a core. As a script:

    python -m tests.support.rtsp --port 8554 --width 1280 --height 720
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

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
    random: random.Random = field(default_factory=lambda: random.Random(1))


class RtspCamera:
    """Serves one clip to any number of clients at rtsp://127.0.0.1:PORT/cam. Use as a context manager."""

    def __init__(
        self, clip: AccessUnits, fps: float = 30, port: int = 0, user: str | None = None, password: str = ""
    ) -> None:
        self.fps, self.faults = fps, Faults()
        self._clip, self._user, self._password, self._port = clip, user, password, port
        self._clients: set[socket.socket] = set()
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
        try:
            with client, client.makefile("rb") as reader:
                while (request := self._request(reader)) is not None:
                    method, headers = request
                    while self.faults.mute:
                        if self._stopping.wait(0.02):
                            return
                    with lock:
                        client.sendall(self._answer(method, headers))
                    if method == "PLAY" and not playing:
                        playing = True
                        self._spawn(self._send, client, lock)
                    if method == "TEARDOWN":
                        return
        except (OSError, ValueError):
            pass  # the client is gone, or we closed it
        finally:
            self._clients.discard(client)

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

    def _answer(self, method: str, headers: dict[str, str]) -> bytes:
        sequence = headers.get("cseq", "0")
        if self._user is not None and method != "OPTIONS":
            token = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            if headers.get("authorization") != f"Basic {token}":
                realm = 'WWW-Authenticate: Basic realm="camera"'
                return f"RTSP/1.0 401 Unauthorized\r\nCSeq: {sequence}\r\n{realm}\r\n\r\n".encode()
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif method == "DESCRIBE":
            body = self._sdp()
            extra = f"Content-Base: {self.url}/\r\nContent-Type: application/sdp\r\n"
        elif method == "SETUP":
            if "TCP" not in headers.get("transport", ""):
                return f"RTSP/1.0 461 Unsupported Transport\r\nCSeq: {sequence}\r\n\r\n".encode()
            transport = f"RTP/AVP/TCP;unicast;interleaved=0-1;ssrc={_SSRC:08X}"
            extra = f"Transport: {transport}\r\nSession: 1;timeout=60\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\nRange: npt=now-\r\n"
        return f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def _sdp(self) -> str:
        sps, pps = (next(n for unit in self._clip for n in unit if n[0] & 31 == kind) for kind in (7, 8))
        sets = ",".join(base64.b64encode(n).decode() for n in (sps, pps))
        fmtp = f"packetization-mode=1;profile-level-id={sps[1:4].hex()};sprop-parameter-sets={sets}"
        lines = (
            "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "t=0 0", "a=control:*",
            f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}", "c=IN IP4 0.0.0.0", f"a=rtpmap:{_PAYLOAD_TYPE} H264/{_CLOCK_HZ}",
            f"a=framerate:{self.fps}", f"a=fmtp:{_PAYLOAD_TYPE} {fmtp}", "a=control:track0", "",
        )  # fmt: skip
        return "\r\n".join(lines)

    # ---- the pictures --------------------------------------------------------------------------------------------

    def _send(self, client: socket.socket, lock: threading.Lock) -> None:
        stream = _RtpStream(self.faults)
        clip, position, begin = self._clip, 0, time.monotonic()
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
                timestamp = int(frame * _CLOCK_HZ / self.fps) + 1_000_000
                data = b""
                if self.faults.reports and due - last_report >= 1:
                    data, last_report = stream.report(timestamp), due
                data += stream.packets(clip[position % len(clip)], timestamp)
                with lock:
                    client.sendall(data)
                self.sent += 1
                frame, position = frame + 1, position + 1


class _RtpStream:
    """RTP and RTCP packets of one client's stream, in RTSP's interleaved frames."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._sequence = faults.random.randrange(65536)
        self._packets = self._bytes = 0

    def report(self, timestamp: int) -> bytes:
        """A sender report: this RTP time is now, by the camera's clock."""
        now = time.time() + self._faults.skew_s + _NTP_EPOCH
        fraction = int((now % 1) * 2**32) & 0xFFFFFFFF
        report = struct.pack(
            "!BBHIIIIII", 0x80, 200, 6, _SSRC, int(now), fraction, timestamp, self._packets, self._bytes
        )
        report += struct.pack("!BBHIBB", 0x81, 202, 3, _SSRC, 1, 2) + b"ed\0\0"
        return struct.pack("!cBH", b"$", 1, len(report)) + report

    def packets(self, unit: list[bytes], timestamp: int) -> bytes:
        """One access unit, cut to packets; some lost or spoilt, as the faults say."""
        pieces = [piece for nal in unit for piece in _fragments(nal)]
        faults, data = self._faults, b""
        for index, piece in enumerate(pieces):
            self._sequence = (self._sequence + 1) & 0xFFFF
            if faults.loss and faults.random.random() < faults.loss:
                continue
            if faults.garbage and faults.random.random() < faults.garbage:
                piece = piece[:2] + faults.random.randbytes(max(0, len(piece) - 2))
            marker = 0x80 if index == len(pieces) - 1 else 0
            packet = struct.pack("!BBHII", 0x80, _PAYLOAD_TYPE | marker, self._sequence, timestamp, _SSRC) + piece
            data += struct.pack("!cBH", b"$", 0, len(packet)) + packet
            self._packets, self._bytes = self._packets + 1, self._bytes + len(piece)
        return data


def _fragments(nal: bytes) -> list[bytes]:
    """A NAL unit as RTP payloads: itself, or FU-A fragments (RFC 6184)."""
    if len(nal) <= _MTU:
        return [nal]
    header, body = nal[0], nal[1:]
    chunks = [body[i : i + _MTU] for i in range(0, len(body), _MTU)]
    last = len(chunks) - 1
    return [
        bytes([header & 0xE0 | 28, header & 31 | (0x80 if i == 0 else 0) | (0x40 if i == last else 0)]) + chunk
        for i, chunk in enumerate(chunks)
    ]


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
