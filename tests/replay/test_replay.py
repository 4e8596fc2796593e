"""What was recorded comes back byte for byte: through the codec, through a file, through another governor."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.clock import NS_PER_MS, NS_PER_S
from edged.errors import EdgedError, UsageError
from edged.governor.governor import Governor
from edged.governor.messages import (
    Answer,
    BatchDone,
    Budget,
    BudgetChanged,
    Choice,
    Device,
    Pinned,
    Request,
    Sensed,
    Skipped,
    Tick,
    Variant,
    Waiting,
    Workload,
)
from edged.governor.state import State
from edged.replay import log, record
from edged.replay.codec import codec
from edged.replay.counterfactual import Counterfactual, Recorded
from edged.replay.log import MAGIC, Packer
from edged.replay.record import Entry, Gap, Header, Sampled, Snapshot
from edged.replay.replayer import Timeline, replay
from edged.replay.run_summary import RunSummary

VARIANTS = (
    Variant("fp16", 0.9, (12.0, 22.0), (1.0,), (8.0,)),
    Variant("int8", 0.85, (6.0, 11.0), (1.0,), (6.0,)),
)
BUDGET = Budget(50.0, 0.99, 0.0, 7.0, 10.0, temperature_c=85.0)
HEADER = Header(record.VERSION, record.SHAPE, "0.1.0", "g", "m", "b", 0.0, 0, 1)

Call = tuple[int, Request, Answer, State]


def drive(governor: Governor, seconds: int = 4, from_ns: int = 0) -> None:
    """Twenty frames a second, a sample and a plan twice a second, a pin and a change of budget in between."""
    for i in range(20 * seconds):
        now_ns = from_ns + i * 50 * NS_PER_MS
        if i % 10 == 0:
            governor.observe(Sensed(6.5 + 0.01 * (i % 7), 55.5 + i / 30), now_ns)
            governor.observe(Workload(2, 40.0), now_ns)
            governor.observe(Tick(), now_ns)
        if i == 30:
            governor.observe(Pinned("fp16"), now_ns)
        if i == 40:
            governor.observe(Pinned(None), now_ns)
            governor.observe(BudgetChanged(replace(BUDGET, power_w=6.0)), now_ns)
        choice = governor.choose(Waiting(2, 3.3, (1.0, 2.0), ("a", "b"), "int8"), now_ns)
        if choice.variant is None:
            governor.observe(Skipped(2, False), now_ns)
            continue
        done = BatchDone(choice.variant, choice.frames, 11.7 + i % 5, 3.3, 0)
        governor.observe(done, now_ns + 20 * NS_PER_MS)


def recorded_calls(seconds: int = 4) -> list[Call]:
    calls: list[Call] = []

    def on_call(now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        calls.append((now_ns, request, answer, governor.snapshot()))

    drive(Governor(VARIANTS, BUDGET, 0, Device((4.0,)), on_call), seconds)
    return calls


@lru_cache
def packed(gap_at: int | None = None, snapshot_after_gap: bool = True) -> bytes:
    """A log of `drive`; from record `gap_at` five are missing."""
    calls = recorded_calls()
    packer = Packer()
    raw = packer.begin(HEADER)
    for i, (now_ns, request, answer, state) in enumerate(calls):
        if gap_at is not None and gap_at <= i < gap_at + 5:
            continue
        if gap_at is not None and i == gap_at + 5:
            packer.add(now_ns, Gap(5))
        packer.add(now_ns, request, answer)
        if gap_at is not None and i == gap_at + 5 and snapshot_after_gap:
            packer.add(now_ns, Snapshot(state))
        if i % 50 == 0:
            raw += packer.frame()
    return raw + packer.frame()


def entries(raw: bytes) -> Iterator[Entry | str]:
    source = io.BytesIO(raw)
    return log.read(source, log.header(source, "a.log"))


def test_every_answer_comes_out_the_same() -> None:
    outcome = replay(entries(packed()))
    assert outcome.exact and outcome.choices == 80 and outcome.decisions >= 3
    assert outcome.unchecked == 0 and not outcome.broken


def test_a_changed_number_anywhere_is_found_and_named() -> None:
    def tampered() -> Iterator[Entry | str]:
        for i, entry in enumerate(entries(packed())):
            assert isinstance(entry, Entry)
            if i > 80 and isinstance(entry.answer, Choice):
                answer = entry.answer._replace(value=math.nextafter(entry.answer.value, 2.0))
                yield replace(entry, answer=answer, answer_raw=record.raw_answer(entry.request, answer))
            else:
                yield entry

    outcome = replay(tampered())
    assert outcome.difference is not None and "choice.value was" in outcome.difference


def test_another_observation_leads_to_another_state() -> None:
    def tampered() -> Iterator[Entry | str]:
        for i, entry in enumerate(entries(packed())):
            assert isinstance(entry, Entry)
            if i > 60 and isinstance(entry.request, BatchDone):
                entry = replace(entry, request=entry.request._replace(service_ms=entry.request.service_ms + 1e-9))
            yield entry

    assert not replay(tampered()).exact


def test_after_a_gap_it_is_exact_again_from_the_snapshot_on() -> None:
    outcome = replay(entries(packed(gap_at=100)))
    assert outcome.exact and outcome.gaps == 1 and outcome.lost == 5
    assert outcome.unchecked == 1  # the record that came between the gap and the snapshot
    rest = replay(entries(packed(gap_at=100, snapshot_after_gap=False)))
    assert rest.exact and rest.unchecked > 50  # nothing after the gap can be known


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_tail_costs_only_its_last_frame(cut: int) -> None:
    whole, torn = replay(entries(packed())), replay(entries(packed()[:-cut]))
    assert torn.exact and len(torn.broken) == 1 and "torn" in torn.broken[0]
    assert whole.records - 51 <= torn.records < whole.records


def test_nothing_compared_is_not_the_same() -> None:
    assert not replay([]).exact and not replay(["damaged"]).exact
    waits = [e for e in entries(packed()) if isinstance(e, Entry) and isinstance(e.request, Waiting)][:3]
    outcome = replay(waits)
    assert outcome.unchecked == 3 and outcome.difference is None and not outcome.exact


def test_after_a_boot_time_goes_on() -> None:
    whole = list(entries(packed()))
    seen: list[int] = []
    outcome = replay([*whole, *whole], lambda now_ns, *_: seen.append(now_ns))
    once = replay(whole)
    assert outcome.exact and outcome.choices == 2 * once.choices
    assert outcome.seconds == pytest.approx(2 * once.seconds) and seen == sorted(seen)


def test_two_runs_in_one_log_are_one_story_and_one_what_if() -> None:
    whole = list(entries(packed()))
    once, story, recorded = RunSummary("once"), RunSummary("twice"), Recorded()
    replay(whole, once.on_call)

    def on_call(*call: Any) -> None:
        story.on_call(*call)
        recorded.on_call(*call)

    replay([*whole, *whole], on_call)
    one, both = once.summary(), story.summary()
    assert both.results == 2 * one.results and both.seconds == pytest.approx(2 * one.seconds)
    other, times = RunSummary("other"), Timeline()
    whatif = Counterfactual(recorded, lambda budget: replace(budget, power_w=5.0), other.on_call)
    for entry in [*whole, *whole]:
        assert isinstance(entry, Entry) and not isinstance(entry.request, Snapshot | Gap | Sampled)
        whatif.observe(times.at(entry.at_ns), entry.request, entry.answer)
    again = other.summary()
    assert again.seconds == pytest.approx(both.seconds, abs=0.2) and again.offered > 1.5 * one.offered
    assert [budget.power_w for _, budget in other.budgets] == [5.0] * len(other.budgets)


def test_a_snapshot_begins_a_log_and_must_equal_the_state_reached() -> None:
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)))
    drive(governor)
    state, calls = governor.snapshot(), []
    after = Governor.resumed(state, lambda *call: calls.append(call))
    drive(after, 2, 10 * NS_PER_S)
    packer = Packer()
    raw = packer.begin(HEADER)
    packer.add(10 * NS_PER_S, Snapshot(state))
    for now_ns, request, answer, _ in calls:
        packer.add(now_ns, request, answer)
    packer.add(20 * NS_PER_S, Snapshot(after.state))
    outcome = replay(entries(raw + packer.frame()))
    assert outcome.exact and outcome.choices == 40
    packer = Packer()
    raw = packer.begin(HEADER)
    packer.add(0, Snapshot(state))
    packer.add(0, Snapshot(after.state))
    outcome = replay(entries(raw + packer.frame()))
    assert outcome.difference is not None and "state" in outcome.difference


def test_a_log_of_an_older_form_is_refused_by_name() -> None:
    older = msgspec.structs.replace(HEADER, version=1, edged="0.0.9")
    with pytest.raises(UsageError, match=r"a\.log is a log of version 1 by edged 0\.0\.9") as error:
        list(entries(Packer().begin(older)))
    assert error.value.hint == "replay it with edged 0.0.9"


def test_a_stranger_is_refused_and_another_version_named() -> None:
    for raw in (b"", b"GIF89a", MAGIC, MAGIC + b"\0\0", MAGIC + b"\xff" * 20):
        with pytest.raises(UsageError, match=r"a\.log"):
            list(entries(raw))
    other = msgspec.structs.replace(HEADER, shape="x", edged="0.0.9")
    with pytest.raises(UsageError, match=r"by edged 0\.0\.9"):
        list(entries(Packer().begin(other)))


@given(st.integers(0, 8000), st.binary(min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_damaged_log_ends_with_a_sentence_or_is_refused(at: int, noise: bytes) -> None:
    raw = bytearray(PACKED)
    at %= len(raw)
    raw[at : at + len(noise)] = noise
    try:
        outcome = replay(entries(bytes(raw)))
    except EdgedError:
        return
    assert outcome.broken or outcome.exact


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text() | st.binary(), lambda x: st.lists(x)))
@settings(max_examples=200, deadline=None)
def test_no_data_makes_a_record_that_is_none(data: Any) -> None:
    for shape in (data, [4, 0, data], [len(record.KINDS), 0, data], [0, 0, data], [6, 1, data, data]):
        with pytest.raises(ValueError):
            record.thaw(shape, 0)


@dataclasses.dataclass(frozen=True)
class Odd:
    whole: int
    share: float | None
    rows: tuple[tuple[float, float], ...]
    table: np.ndarray[Any, np.dtype[np.float64]]
    kind: Tick | Pinned | None


@given(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.lists(st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False))),
)
def test_numbers_come_back_to_the_last_bit(whole: int, share: float, rows: list[tuple[float, float]]) -> None:
    odd = Odd(whole, share, tuple(rows), np.array([[share, -0.0], [1.5, 2.0]]).T, Pinned("x"))
    made = codec(Odd)
    back = made.thaw(msgspec.msgpack.decode(msgspec.msgpack.encode(made.freeze(odd))))
    assert (back.whole, back.rows, back.kind) == (odd.whole, odd.rows, odd.kind)
    assert back.share == odd.share and back.share is not None and odd.share is not None
    assert math.copysign(1, back.share) == math.copysign(1, odd.share)
    assert back.table.tobytes("A") == odd.table.tobytes("A") and back.table.flags.f_contiguous


def test_an_array_is_one_by_whichever_name_numpy_gives_its_type() -> None:
    assert codec(NDArray[np.float64]).shape == codec(np.ndarray).shape


def test_what_cannot_be_kept_exactly_is_a_fault_of_the_program() -> None:
    for kind in (set[int], Any, object, bytes):
        with pytest.raises(TypeError, match="cannot be recorded exactly"):
            codec(kind)


PACKED = packed()
