"""MJPEG as cameras write it: with and without lengths, cut anywhere, and each picture as soon as it is whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.sources.jpeg import jpeg_length
from edged.frames.sources.multipart import JpegReader, MultipartReader


def jpeg(n: int) -> bytes:
    picture = np.random.default_rng(n).integers(0, 256, (24, 32, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", picture)[1].tobytes())


JPEGS = [jpeg(n) for n in range(4)]


def stream(lengths: bool, boundary: str = "b", end: bytes = b"\r\n") -> bytes:
    data = b""
    for image in JPEGS:
        length = b"Content-Length: %d" % len(image) + end if lengths else b""
        data += b"--" + boundary.encode() + end + b"Content-Type: image/jpeg" + end + length + end + image + end
    return data


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("boundary", ["b", "--b", '"b"'])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_parts_come_out_whole_however_they_arrive(lengths: bool, boundary: str, end: bytes) -> None:
    data = stream(lengths, end=end)
    for step in (1, 7, 100, len(data)):
        reader = MultipartReader(boundary)
        parts = [part for at in range(0, len(data), step) for part in reader.push(data[at : at + step], at)]
        assert [part.data for part in parts] == JPEGS
        assert {part.content_type for part in parts} == {"image/jpeg"}


@pytest.mark.parametrize("lengths", [True, False])
def test_a_part_is_there_with_its_last_byte_and_has_its_own_arrival(lengths: bool) -> None:
    reader, first = MultipartReader("b"), stream(lengths).index(JPEGS[0]) + len(JPEGS[0])
    data = stream(lengths)
    assert reader.push(data[: first - 1], 5) == []
    [part] = reader.push(data[first - 1 : first + 2], 9)
    assert part.arrival_ns == 5
    second = data.index(JPEGS[1]) + len(JPEGS[1])
    [part] = reader.push(data[first + 2 : second], 70)
    assert part.arrival_ns == 70


@pytest.mark.parametrize("head", [b"", b"\r\n--b\r\n", b"\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n"])
def test_what_comes_with_the_end_of_the_picture_before_is_no_arrival(head: bytes) -> None:
    reader, begin = MultipartReader("b"), b"\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n"
    found = reader.push(begin + JPEGS[0] + head, 5)
    rest = begin.removeprefix(head) + JPEGS[1]
    found += reader.push(rest[:-9], 70) + reader.push(rest[-9:], 80)
    assert [(part.data, part.arrival_ns) for part in found] == [(JPEGS[0], 5), (JPEGS[1], 70)]


def test_a_cut_picture_ends_at_the_next_boundary() -> None:
    cut = JPEGS[0][: len(JPEGS[0]) // 2]
    reader = MultipartReader("b")
    parts = reader.push(b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + cut + b"\r\n" + stream(False), 1)
    assert [part.data for part in parts] == [cut, *JPEGS]


@pytest.mark.parametrize("start", ["b", "--other"])
def test_another_boundary_than_was_said_is_learnt_from_the_first_part(start: str) -> None:
    data = stream(True).replace(b"--b", start.encode())
    reader = MultipartReader("b")
    assert [part.data for at in range(0, len(data), 50) for part in reader.push(data[at : at + 50], at)] == JPEGS


@pytest.mark.parametrize("off", [7, -40, 2000])
def test_lengths_that_are_wrong_are_found_out_with_the_first(off: int) -> None:
    data = stream(True)
    for image in JPEGS:
        data = data.replace(b"Length: %d" % len(image), b"Length: %d" % (len(image) + off))
    reader = MultipartReader("b")
    assert [part.data for at in range(0, len(data), 50) for part in reader.push(data[at : at + 50], at)] == JPEGS


@pytest.mark.parametrize("end", [b"", b"\xff\xd9" + bytes(30)], ids=["no end marker", "padded"])
def test_right_lengths_are_believed_however_the_picture_ends(end: bytes) -> None:
    images = [image[:-2] + end for image in JPEGS]
    reader, found = MultipartReader("b"), []
    for n, image in enumerate(images):
        head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image)
        found += [(part.data, n - part.arrival_ns) for part in reader.push(head + image + b"\r\n", n)]
    assert found == [(images[0], 1), *((image, 0) for image in images[1:])], "the first waits for the proof"


def test_jpegs_with_nothing_between_them() -> None:
    data, reader = b"".join(JPEGS) + b"\0\0" + JPEGS[0], JpegReader()
    found = [part for at in range(0, len(data), 50) for part in reader.push(data[at : at + 50], at)]
    assert [part.data for part in found] == [*JPEGS, JPEGS[0]]
    reader.push(JPEGS[1] + b"\r\n", 10_000)
    assert [part.arrival_ns for part in reader.push(JPEGS[2], 20_000)] == [20_000]


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_give_parts_and_bounded_memory(chunks: list[bytes]) -> None:
    reader = MultipartReader("b")
    for n, chunk in enumerate([*chunks, b"--b\r\n", *chunks]):
        reader.push(chunk, n)


def test_where_a_jpeg_ends() -> None:
    image = JPEGS[0]
    assert jpeg_length(image + b"more") == len(image)
    assert all(jpeg_length(image[:n]) is None for n in range(0, len(image), 37))
    preview = b"\xff\xd8\xff\xe1" + (len(JPEGS[1]) + 2).to_bytes(2, "big") + JPEGS[1] + image[2:]
    assert jpeg_length(preview + b"x") == len(preview), "a preview within has an end of its own"


@given(st.binary(max_size=100))
def test_any_bytes_have_an_end_or_none(data: bytes) -> None:
    jpeg_length(b"\xff\xd8" + data)
