"""The lane as a stream reader: who gets which bytes, what it tells the library, and when it is not used."""

import asyncio
from collections.abc import Sequence

import aiormq
import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from structlog.testing import capture_logs

from tests.contract.test_frames import BEAT, delivery
from worker.adapters.amqp import lane as module
from worker.adapters.amqp import lenient
from worker.adapters.amqp.framelayouts import ack_frame
from worker.adapters.amqp.frames import Cut
from worker.adapters.amqp.lane import HEARTBEAT_FRAME, Lane, unknown

OTHER = marshal(Basic.QosOk(), 3)


class Rig:
    """A lane with one registered channel, a clock of its own, and all that came of it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lists: list[Sequence[Cut]] = []
        self.lane = Lane(asyncio.get_running_loop(), clock=lambda: self.now)
        self.lane.register(1, self.lists.append)

    def feed(self, *frames: bytes) -> None:
        self.lane.feed_data(b"".join(frames))

    async def passed(self) -> bytes:
        """What the library could read so far."""
        self.lane.feed_eof()
        return await self.lane.read()


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_deliveries_come_in_one_list_a_chunk(rig: Rig) -> None:
    """And the library sees all the rest, and one heartbeat for what it did not see."""
    first, second, third = (delivery(1, tag) for tag in (1, 2, 3))
    rig.feed(*first.frames, OTHER, *second.frames)
    rig.feed(*third.frames)

    assert rig.lists == [[first.cut, second.cut], [third.cut]]
    assert await rig.passed() == OTHER + HEARTBEAT_FRAME


async def test_what_is_kept_back_is_a_sign_of_life_once_a_second(rig: Rig) -> None:
    """Also the pieces of one large message, which takes long to come."""
    large = delivery(1, 1, b"z" * 300, frame_max=100)
    for frame in large.frames:
        rig.feed(frame)
        rig.now += 0.4

    assert await rig.passed() == HEARTBEAT_FRAME * 2
    assert BEAT.frames == (HEARTBEAT_FRAME,)


async def test_no_heartbeat_is_put_into_a_frame_of_others(rig: Rig) -> None:
    """That frame is itself a sign of life."""
    body = marshal(ContentBody(b"y" * 100), 3)
    rig.feed(*delivery(1, 1).frames, body[:50])
    rig.feed(body[50:])

    assert await rig.passed() == body


async def test_nothing_is_said_where_nothing_is_kept(rig: Rig) -> None:
    """The library counts what it sees by itself."""
    rig.feed(OTHER)

    assert await rig.passed() == OTHER


async def test_a_receiver_that_raises_harms_nobody_else() -> None:
    """It is logged; the connection lives, and the next ones come."""
    lane = Lane(asyncio.get_running_loop())
    came: list[int] = []

    def receive(cuts: Sequence[Cut]) -> None:
        came.extend(cut[0] for cut in cuts)
        raise RuntimeError("bug")

    lane.register(1, receive)
    with capture_logs() as logs:
        lane.feed_data(b"".join(delivery(1, 1).frames))
        lane.feed_data(b"".join(delivery(1, 2).frames))

    assert came == [1, 2]
    assert [line["event"] for line in logs] == ["broker.delivery_failed"] * 2


async def test_a_broken_stream_is_left_to_the_library_and_told_once(rig: Rig) -> None:
    """It sees what it would have seen without a lane."""
    with capture_logs() as logs:
        rig.feed(*delivery(1, 1).frames, b"\x05garbage")
        rig.feed(*delivery(1, 2).frames)

    assert [line["event"] for line in logs] == ["broker.lane_left"]
    assert rig.lane.fault
    assert await rig.passed() == b"\x05garbage" + b"".join(delivery(1, 2).frames)


class Transport(asyncio.Transport):
    """Remembers whether it was asked to pause."""

    paused = False

    def pause_reading(self) -> None:
        self.paused = True


async def test_backpressure_is_that_of_what_the_library_has_not_read(rig: Rig) -> None:
    """What is kept from it is bounded by the prefetch, and does not count."""
    transport = Transport()
    rig.lane.set_transport(transport)
    rig.feed(*delivery(1, 1, b"z" * 500_000).frames)
    assert not transport.paused

    rig.feed(marshal(ContentBody(b"y" * 140_000), 3))
    assert transport.paused


def test_the_installed_library_is_known() -> None:
    """Else every figure of this project is another one."""
    assert unknown() == ""


def test_another_library_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another major version, no transport factory, or decoders that are not those we replace."""
    with monkeypatch.context() as other:
        other.setattr(module, "version", lambda _: "8.0.0")
        assert "aiormq 8.0.0" in unknown()
    with monkeypatch.context() as other:
        other.setattr(aiormq.Connection, "__init__", lambda self, url: None)
        assert "transport factory" in unknown()
    with monkeypatch.context() as other:
        other.setattr(lenient, "install", lambda: False)
        assert "decoders" in unknown()


@pytest.mark.parametrize("multiple", [True, False])
def test_acks_are_written_as_the_library_writes_them(multiple: bool) -> None:
    """Byte for byte."""
    assert ack_frame(7, 2**40, multiple) == marshal(Basic.Ack(2**40, multiple), 7)
