"""The frame cutter: whatever the stream and wherever it is split, deliveries are cut out and all else is handed on."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes, marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from worker.adapters.amqp.frames import Cut, Cutter

OURS = (1, 2)


@dataclass(frozen=True)
class Item:
    """What one channel says, frame by frame; ``cut`` is the delivery that it is, if it is one of ours."""

    channel: int
    frames: tuple[bytes, ...]
    cut: Cut | None = None


def wire(channel: int, *frames: FrameTypes) -> tuple[bytes, ...]:
    return tuple(marshal(frame, channel) for frame in frames)


def content(body: bytes, frame_max: int = 1000, **properties: object) -> tuple[FrameTypes, ...]:
    """Header and bodies, as many as it takes."""
    known = commands.Basic.Properties(**properties)  # type: ignore[arg-type]
    pieces = [body[start : start + frame_max] for start in range(0, len(body), frame_max)]
    return ContentHeader(body_size=len(body), properties=known), *map(ContentBody, pieces)


def delivery(channel: int, tag: int, body: bytes = b"{}", *, frame_max: int = 1000, key: str = "k") -> Item:
    method = commands.Basic.Deliver(
        consumer_tag="c", delivery_tag=tag, redelivered=tag % 3 == 0, exchange="x", routing_key=key
    )
    parts = content(body, frame_max, message_id=str(tag))
    flags = struct.pack(">HB", 0x80, len(str(tag))) + str(tag).encode()
    cut = (tag, int(tag % 3 == 0), b"x", key.encode(), flags, body)
    return Item(channel, wire(channel, method, *parts), cut if channel in OURS else None)


def returned(channel: int, body: bytes) -> Item:
    method = commands.Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="k")
    return Item(channel, wire(channel, method, *content(body, 10)))


def said(channel: int) -> Item:
    """A method without content."""
    return Item(channel, wire(channel, commands.Basic.QosOk()))


BEAT = Item(0, (Heartbeat().marshal(),))

bodies = st.binary(max_size=40)
items = st.one_of(
    st.builds(delivery, st.sampled_from((1, 2, 3)), st.integers(1, 2**63 - 1), bodies, frame_max=st.integers(1, 50)),
    st.builds(returned, st.sampled_from((1, 3)), bodies),
    st.builds(said, st.sampled_from((1, 2, 3))),
    st.just(BEAT),
)


Spoken = tuple[list[Item], list[tuple[bool, bytes]]]


@st.composite
def conversations(draw: st.DrawFn) -> Spoken:
    """Items, and their frames in the order of the wire, each with whether it is to be cut out.

    Channels take turns anywhere, each in its own order.
    """
    spoken = draw(st.lists(items, max_size=12))
    lines = [
        [(item.cut is not None, frame) for item in spoken if item.channel == number for frame in item.frames]
        for number in range(4)
    ]
    order: list[tuple[bool, bytes]] = []
    while waiting := [line for line in lines if line]:
        line = draw(st.sampled_from(waiting))
        count = draw(st.integers(1, 6))
        order.extend(line[:count])
        del line[:count]
    return spoken, order


def split(data: bytes, at: Iterable[int]) -> list[bytes]:
    """Cut the bytes at these places, as far as they exist."""
    marks = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


def fed(chunks: Iterable[bytes], cutter: Cutter | None = None) -> tuple[bytes, dict[int, list[Cut]], Cutter]:
    """Everything that was handed on, everything that was cut, and the cutter."""
    if cutter is None:
        cutter = Cutter()
        for channel in OURS:
            cutter.register(channel)
    passed, taken = b"", dict[int, list[Cut]]()
    for chunk in chunks:
        passed += cutter.feed(chunk)
        for channel, cuts in cutter.take():
            taken.setdefault(channel, []).extend(cuts)
    return passed, taken, cutter


@given(conversations(), st.lists(st.integers(0, 5000), max_size=30))
def test_any_split_cuts_the_deliveries_and_hands_all_else_on(conversation: Spoken, at: list[int]) -> None:
    """Every delivery of a registered channel, in order; every other frame, in order, byte for byte."""
    spoken, order = conversation
    passed, taken, cutter = fed(split(b"".join(frame for _, frame in order), at))

    assert not cutter.fault
    for channel in OURS:
        assert taken.get(channel, []) == [item.cut for item in spoken if item.cut and item.channel == channel]
    assert passed == b"".join(frame for is_cut, frame in order if not is_cut)


@given(conversations())
def test_byte_by_byte_is_the_same_as_at_once(conversation: Spoken) -> None:
    """The worst network there can be."""
    data = b"".join(frame for _, frame in conversation[1])

    assert fed([data[place : place + 1] for place in range(len(data))])[:2] == fed([data])[:2]


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_random_bytes_are_handed_on_and_never_raise(chunks: list[bytes]) -> None:
    """Nothing is lost: what is not handed on yet is less than a frame's beginning, or a frame of ours to come."""
    passed, taken, _ = fed(chunks)

    assert b"".join(chunks).startswith(passed)
    assert not taken


@given(conversations(), st.integers(0, 5000), st.binary(min_size=1, max_size=3), st.lists(st.integers(0, 5000)))
def test_a_stream_with_a_broken_place_never_raises(
    conversation: Spoken, place: int, damage: bytes, at: list[int]
) -> None:
    """And once it was found to be broken, everything is handed on."""
    data = bytearray(b"".join(frame for _, frame in conversation[1]))
    place %= len(data) + 1
    data[place : place + len(damage)] = damage
    _, _, cutter = fed(split(bytes(data), at))

    if cutter.fault:
        assert cutter.feed(b"anything") == b"anything"


@given(conversations(), st.lists(st.integers(0, 5000), max_size=5))
def test_without_a_registered_channel_nothing_is_touched(conversation: Spoken, at: list[int]) -> None:
    """Also the deliveries of others."""
    data = b"".join(frame for _, frame in conversation[1])

    assert fed(split(data, at), Cutter())[:2] == (data, {})


def test_a_frame_of_others_is_handed_on_as_far_as_it_has_come() -> None:
    """A large one does not have to wait for its end; a new frame may be put behind it only when it is whole."""
    (frame,) = wire(3, ContentBody(b"y" * 100_000))
    cutter = Cutter()

    assert cutter.feed(frame[:50_000]) == frame[:50_000]
    assert not cutter.between_frames
    assert cutter.feed(frame[50_000:]) == frame[50_000:]
    assert cutter.between_frames


@pytest.mark.parametrize("size", [0, 1, 130_000, 131_064, 1_000_000])
def test_a_body_may_have_any_number_of_frames(size: int) -> None:
    """None, one, and as many as the largest frames of a usual broker leave."""
    item = delivery(1, 7, b"z" * size, frame_max=131_064)
    data = b"".join(item.frames)

    assert fed(split(data, range(0, len(data), 65_536)))[1] == {1: [item.cut]}


@pytest.mark.parametrize("number", [commands.Channel.Close(406, "gone", 60, 80), commands.Channel.CloseOk()])
def test_a_closed_channel_is_no_longer_cut(number: commands.Channel.Close | commands.Channel.CloseOk) -> None:
    """Its number may be another one's by then; what came before is still ours."""
    before, after = delivery(1, 1), delivery(1, 1)
    passed, taken, cutter = fed([b"".join((*before.frames, *wire(1, number), *after.frames))])

    assert taken == {1: [before.cut]}
    assert passed == b"".join((*wire(1, number), *after.frames))
    assert not cutter.is_registered(1)


BROKEN = {
    "an unknown kind": b"\x05\x00\x01\x00\x00\x00\x00\xce",
    "no end": b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x14\x00",
    "no end, on another channel": b"\x08\x00\x00\x00\x00\x00\x00\xcf",
    "a method in the middle": b"".join(wire(1, commands.Basic.QosOk())),
    "a header twice": delivery(1, 9).frames[1],
    "a body that is too long": b"".join(wire(1, ContentBody(b"x" * 100))),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_is_handed_on_with_what_was_kept_back(broken: bytes) -> None:
    """The reader behind sees the same bytes that it would have seen: the unfinished delivery, then the fault."""
    whole, half = delivery(1, 1), delivery(1, 2, b"12345", frame_max=3)
    passed, taken, cutter = fed([b"".join((*whole.frames, *half.frames[:3])), broken + b"more"])

    assert taken == {1: [whole.cut]}
    assert passed == b"".join(half.frames[:3]) + broken + b"more"
    assert cutter.fault
    assert cutter.feed(b"\x00") == b"\x00"


@pytest.mark.parametrize(
    "payload", [b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x3c\xffc", b"\x00\x3c\x00\x3c\x01c" + bytes(9) + b"\x01x\x05k"]
)
def test_a_delivery_that_does_not_fill_its_frame_is_a_broken_stream(payload: bytes) -> None:
    """Its strings end before or behind it."""
    frame = struct.pack(">BHI", 1, 1, len(payload)) + payload + b"\xce"
    passed, taken, cutter = fed([frame])

    assert (passed, taken, bool(cutter.fault)) == (frame, {}, True)


@pytest.mark.parametrize("content_class", [10, 60])
def test_a_header_that_is_short_or_of_another_class_is_a_broken_stream(content_class: int) -> None:
    """There is no body size in it, or it says nothing about messages."""
    method = delivery(1, 1).frames[0]
    size = struct.pack(">HHQH", content_class, 0, 5, 0)[: 14 if content_class == 10 else 13]
    header = struct.pack(">BHI", 2, 1, len(size)) + size + b"\xce"
    passed, _, cutter = fed([method + header])

    assert passed == method + header
    assert cutter.fault
