"""Tests of the camera's state machine that read as scripts: at a time, an event, and what is then to be seen and done.

    script = '''
    0.0   start      -> opening        spawn report
    0.3   opened 30  -> opening
    0.4   frame      -> live           report
    '''

A failure prints the script and what really happened, line by line.
"""

from __future__ import annotations

from edged.frames import camera_state as life

_S = 1_000_000_000


_PLAIN: dict[str, type[life.Event]] = {
    "frame": life.FrameSeen,
    "frozen": life.FrozenSeen,
    "corrupt": life.CorruptSeen,
    "alive": life.Alive,
    "gone": life.ChildGone,
    "end": life.EndOfFile,
    "tick": life.Tick,
}


def _event(words: list[str]) -> life.Event:
    kind, *rest = words
    match kind:
        case "opened":
            return life.Opened(round(_S / float(rest[0])) if rest else 0)
        case "waiting":
            return life.Waiting(" ".join(rest))
        case "failed" | "refused":
            return life.ChildFailed(" ".join(rest), final=kind == "refused")
        case _:
            return _PLAIN[kind]()  # type: ignore[call-arg]


def play(script: str, name: str = "gate") -> life.Camera:
    """Play the script; `frames T` in place of an event gives a frame every 100 ms until then."""
    expected, actual = [], []
    camera: life.Camera | None = None
    for line in filter(None, (line.strip() for line in script.splitlines())):
        left, _, right = line.partition("->")
        at, *words = left.split()
        now_ns = round(float(at) * _S)
        if camera is None:
            slowest_ns = round(_S / float(words[1])) if words[1:] else 0  # the configured rate
            camera, actions = life.start(name, now_ns, slowest_ns)
        elif words[0] == "frames":
            done: list[life.Action] = []
            while now_ns <= float(words[1]) * _S:
                camera, actions = life.step(camera, life.FrameSeen(), now_ns)
                done += actions
                now_ns += _S // 10
            actions = tuple(done)
        else:
            camera, actions = life.step(camera, _event(words), now_ns)
        state = type(camera.state).__name__.lower()
        expected.append(f"{at:>8} {' '.join(words):<24} -> {' '.join(right.split())}")
        actual.append(f"{at:>8} {' '.join(words):<24} -> {' '.join([state, *(a.value for a in actions)])}")
    assert camera is not None
    pairs = zip(expected, actual, strict=True)
    report = [f"{'  ' if e == a else '! '}{e:<70} {'' if e == a else a.split('->')[1]}" for e, a in pairs]
    assert expected == actual, "expected, and (!) what happened:\n" + "\n".join(report)
    return camera
