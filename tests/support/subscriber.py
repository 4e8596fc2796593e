"""A subscriber that knows edged only from its documentation: pyzmq and msgpack, nothing of edged's own code.

python subscriber.py ENDPOINT TOPIC COUNT [TIMEOUT_S] prints one JSON line per message: topic, payload and, for the
bench, the monotonic nanoseconds of its arrival; then exits 0, or 1 if COUNT messages did not come in time.
"""

import json
import sys
import time

import msgpack
import zmq


def main(endpoint: str, topic: str, count: str, timeout_s: str = "10") -> int:
    end = time.monotonic() + float(timeout_s)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        socket.connect(endpoint)
        for _ in range(int(count)):
            if not socket.poll(max(0, int((end - time.monotonic()) * 1000))):
                return 1
            name, payload = socket.recv_multipart()
            arrived_ns = time.monotonic_ns()
            line = {"topic": name.decode(), "arrived_ns": arrived_ns, "message": msgpack.unpackb(payload)}
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
