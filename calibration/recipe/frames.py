"""Pictures to calibrate on and to measure on, as the daemon would feed them: BGR, letterboxed to the model's input.

In: a folder of pictures (any depth), a .npy file of them, or scene://SEED?count=N&textures=T, which renders machine
parts with known boxes. Out: `Frames`, which reads one picture at a time, so that a set may be larger than the memory.
"""

from __future__ import annotations

import functools
import hashlib
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged.frames.frame import PixelFormat
from edged.synthetic.scene import LABELS, sample, textures
from edged.vision.letterbox import Letterbox, Letterboxer
from edged_calibration.digest import digest_of
from edged_calibration.evaluate.average_precision import Boxes
from edged_calibration.graph.index import Feed
from edged_calibration.recipe.input_normalisation import Normalisation
from edged_calibration.recipe.labels import Truth, from_coco, from_csv, from_folders

Image = NDArray[np.uint8]

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
TEXTURE_COUNT: Final = 96
FEED_BATCH: Final = 8
_SMALLEST: Final = 0.5  # of the size it is scaled to, on both sides: below, a frame is mostly invented


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: `image` [height, width, 3] of the model's size; `truth` in pixels of the source, None if unknown."""

    name: str
    image: Image
    letterbox: Letterbox
    truth: Truth | None


class Source(Protocol):
    """Where pictures come from."""

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, index: int) -> tuple[Image, Truth | None]: ...

    def digest(self) -> str:
        """Of all that decides what `read` gives."""
        ...


class Frames:
    """A set of pictures of one model's input."""

    def __init__(self, name: str, source: Source, spec: InputSpec, truth: dict[str, Truth] | None = None) -> None:
        self.name = name
        self.spec = spec
        self._source = source
        self._truth = truth
        self._buffer = np.full((1, spec.height, spec.width, 3), spec.pad, np.uint8)
        self._letterboxer = Letterboxer(spec, [self._buffer])
        self._indices = list(range(len(source.names)))

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, number: int) -> Picture:
        """UsageError if it is no picture, or far too small a one."""
        index = self._indices[number]
        name = self._source.names[index]
        pixels, truth = self._source.read(index)
        height, width = pixels.shape[:2]
        letterbox = self._letterboxer.geometry(width, height)
        if max(width / letterbox.scaled_width, height / letterbox.scaled_height) < _SMALLEST:
            raise UsageError(
                f"{name} has {width}x{height} pixels, less than half of the model's {self.spec.width}x"
                f"{self.spec.height} on either side",
                "give frames of the cameras' own size, as the daemon will see them",
            )
        self._letterboxer.fill(letterbox, pixels, PixelFormat.BGR24, 0, 0)
        return Picture(name, self._buffer[0].copy(), letterbox, self._truth[name] if self._truth else truth)

    def images(self, first: int, count: int) -> Image:
        """Up to `count` pictures [n, height, width, 3] from `first` on."""
        return np.stack([self.read(number).image for number in range(first, min(first + count, len(self)))])

    def subset(self, numbers: Sequence[int]) -> Frames:
        """Those pictures alone."""
        part = Frames(self.name, self._source, self.spec, self._truth)
        part._indices = [self._indices[number] for number in numbers]
        return part

    def digest(self) -> str:
        """SHA-256 of the pictures and of which of them are taken; cheap for rendered ones."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        chosen = hashlib.sha256(self._source.digest().encode())
        chosen.update(f"{self.spec.width}x{self.spec.height} {self.spec.pad} {self._indices}".encode())
        for index in self._indices if self._truth else ():
            truth = self._truth[self._source.names[index]] if self._truth else None
            chosen.update(repr(truth).encode() if isinstance(truth, int) else _bytes_of(truth))
        return chosen.hexdigest()


class Feeds(Sequence[Feed]):
    """Normalised batches for the float graph, made when they are asked for."""

    def __init__(self, frames: Frames, name: str, normalisation: Normalisation, batch: int = FEED_BATCH) -> None:
        self._frames, self._name, self._normalisation, self._batch = frames, name, normalisation, batch

    def __len__(self) -> int:
        return -(-len(self._frames) // self._batch)

    def digest(self) -> str:
        """Of the pictures, and of how they become planes."""
        return digest_of([self._frames, self._name, self._normalisation, self._batch])

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | Sequence[Feed]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {self._name: self._normalisation.planes(self._frames.images(index * self._batch, self._batch))}


def open_frames(
    source: str, base: Path, spec: InputSpec, count: int, labels: str = "", classes: Sequence[str] = ()
) -> Frames:
    """The pictures that a recipe names, at most `count`, taken evenly. UsageError says what is wrong with them."""
    if source.startswith("scene:"):
        scene = _scene(source, spec, count)
        if labels not in ("", "scene") or (labels and list(classes) != list(LABELS)):
            raise UsageError(
                f"{source}: rendered pictures have the labels {', '.join(LABELS)}",
                'set labels = "scene" in [validation], and these labels in the recipe; or leave both out',
            )
        return Frames(source, scene if labels else _Unlabelled(scene), spec)
    path = base / source
    opened: Source = _array(path, spec) if path.suffix == ".npy" else _folder(path)
    frames = Frames(str(path), opened, spec, _truth(opened, labels, base, classes))
    total = len(opened.names)
    return (
        frames if total <= count else frames.subset([round(i * (total - 1) / max(count - 1, 1)) for i in range(count)])
    )


def _truth(source: Source, labels: str, base: Path, classes: Sequence[str]) -> dict[str, Truth] | None:
    if not labels:
        return None
    if labels == "folders":
        return from_folders(source.names, classes)
    path = base / labels
    if path.suffix == ".json":
        return from_coco(path, source.names, classes)
    if path.suffix == ".csv":
        return from_csv(path, source.names, classes)
    raise UsageError(f'labels {labels!r} is neither a .json, nor a .csv, nor "folders"', "correct validation.labels")


class _Folder:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self.names = path, names

    def read(self, index: int) -> tuple[Image, Truth | None]:
        path = self._path / self.names[index]
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}", "repair or remove it") from error
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
        if pixels is None:
            raise UsageError(f"{path} is not a picture that can be read", "repair or remove it")
        return pixels.astype(np.uint8, copy=False), None

    def digest(self) -> str:
        found = hashlib.sha256()
        for name in self.names:
            try:
                found.update(hashlib.sha256((self._path / name).read_bytes()).digest() + name.encode())
            except OSError as error:
                raise UsageError(
                    f"{self._path / name} cannot be read: {error.strerror}", "repair or remove it"
                ) from error
        return found.hexdigest()


def _folder(path: Path) -> _Folder:
    try:
        entries = sorted(path.rglob("*")) if path.is_dir() else None
        readable = entries is not None and any(True for _ in path.iterdir())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    if entries is None:
        what = "is not a folder" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}", "give a folder of pictures, a .npy file, or scene://SEED?count=N")
    names = [e.relative_to(path).as_posix() for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()]
    if not names:
        what = "no pictures in it" if readable else "it is empty"
        raise UsageError(f"{path}: {what}", f"put frames of your cameras there ({' '.join(SUFFIXES)})")
    return _Folder(path, names)


class _Array:
    def __init__(self, path: Path, images: Image) -> None:
        self._path, self._images = path, images
        self.names = [f"{path.name}[{index}]" for index in range(len(images))]

    def read(self, index: int) -> tuple[Image, Truth | None]:
        return np.ascontiguousarray(self._images[index]), None

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self._images).data).hexdigest()


def _array(path: Path, spec: InputSpec) -> _Array:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", "give a .npy file") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a .npy file of pictures", "save it with numpy.save") from error
    wanted = (spec.height, spec.width, 3)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8 or not len(images):
        raise UsageError(
            f"{path} holds {images.dtype} {'x'.join(map(str, images.shape))}, expected uint8 n x "
            + " x ".join(map(str, wanted)),
            "save BGR frames of the model's own size, or give a folder of pictures",
        )
    return _Array(path, images)


class _Scene:
    """Each picture a pure function of (seed, number), on grounds of their own seed."""

    def __init__(self, uri: str, seed: int, texture_seed: int, count: int, spec: InputSpec) -> None:
        cv2.setNumThreads(1)  # the pictures are to be the same on every machine
        self._uri, self._seed, self._spec = uri, seed, spec
        self._grounds = textures(texture_seed, TEXTURE_COUNT, spec.width, spec.height)
        self.names = [f"{uri}#{index}" for index in range(count)]

    def read(self, index: int) -> tuple[Image, Truth | None]:
        rng = np.random.default_rng((self._seed, index))
        image, boxes, classes = sample(rng, self._grounds, self._spec.width, self._spec.height)
        return image, Boxes(boxes, classes, np.ones(len(classes), np.float32))

    def digest(self) -> str:
        return hashlib.sha256(self.names[-1].encode() + self.read(0)[0].tobytes()).hexdigest()


class _Unlabelled:
    def __init__(self, source: Source) -> None:
        self._source, self.names = source, source.names

    def read(self, index: int) -> tuple[Image, Truth | None]:
        return self._source.read(index)[0], None

    def digest(self) -> str:
        return self._source.digest()


def _scene(uri: str, spec: InputSpec, limit: int) -> _Scene:
    parsed = urllib.parse.urlsplit(uri)
    query = dict(urllib.parse.parse_qsl(parsed.query))
    numbers = [parsed.netloc, *query.values()]
    if query.keys() - {"count", "textures"} or not all(n.isdecimal() and len(n) < 10 for n in numbers):
        raise UsageError(f"{uri} cannot be rendered", "write scene://SEED?count=N&textures=SEED, with whole numbers")
    count = min(int(query.get("count", 128)), limit)
    if count < 1:
        raise UsageError(f"{uri} has no pictures", "write count=1 or more")
    return _Scene(uri, int(parsed.netloc), int(query.get("textures", 1)), count, spec)


def _bytes_of(truth: Truth | None) -> bytes:
    return truth.corners.tobytes() + truth.classes.tobytes() if isinstance(truth, Boxes) else b""
