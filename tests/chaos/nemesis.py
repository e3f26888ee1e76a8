"""The faults of a campaign, by name. Each is a context: entering it breaks something, leaving it mends that again.

A fault needs things for itself (``needs``), so that what one breaks is not mended by another; faults with different
needs overlap. Deliberately absent, because the right answer to them cannot be told from a wrong one afterwards: single
orders refused or blamed at random (a correct worker dead-letters what is refused twice alone), and calls that are
executed after the worker gave them up.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.chaos.schedule import Kind
from tests.chaos.stage import Stage
from tests.support.proxy import TcpProxy, Way

WATERMARK = "set_vm_memory_high_watermark"
HOT_ORDERS = range(1, 6)
CRAWL_BYTES_PER_S = 20_000
PORT_S = 30.0
LISTENS_TO_SIGNALS = "admin.listening"
"""Logged after the handlers are set; before, a signal ends the interpreter in the middle of its imports."""


class BadEnd(Exception):
    """A worker that was asked to stop did not do so in good order."""


Act = Callable[[Stage, int], AbstractAsyncContextManager[None]]


@dataclass(slots=True, frozen=True, kw_only=True)
class Fault(Kind):
    """``act`` breaks and mends; it is handed the stage, and the place that it is against."""

    act: Act


# -- workers ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def worker_killed(stage: Stage, slot: int) -> AsyncIterator[None]:
    """As the kernel does it."""
    await stage.end_worker(slot, signal.SIGKILL)
    yield
    await stage.start_worker(slot)


@asynccontextmanager
async def worker_stopped(stage: Stage, slot: int) -> AsyncIterator[None]:
    """In good order, as in a deployment; one that has taken nothing in hand yet may simply end."""
    life = stage.replicas[slot].life
    code = await stage.end_worker(slot, signal.SIGTERM)
    yield
    await stage.start_worker(slot)
    if code != 0 and life is not None and life.heard[LISTENS_TO_SIGNALS]:
        raise BadEnd(f"exit code {code} after SIGTERM")


@asynccontextmanager
async def worker_frozen(stage: Stage, slot: int) -> AsyncIterator[None]:
    """It stands still in the middle of whatever it does, and goes on later as if nothing had been."""
    life = stage.replicas[slot].life
    if life is not None:
        life.send(signal.SIGSTOP)
    yield
    if life is not None:
        life.send(signal.SIGCONT)


@asynccontextmanager
async def paused_by_hand(stage: Stage, slot: int) -> AsyncIterator[None]:
    """A person pauses one worker, and resumes it."""
    life = stage.replicas[slot].life
    if life is not None:
        await life.ask("POST", "/pause")
    yield
    if life is not None:
        await life.ask("POST", "/resume")


# -- the broker -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def broker_killed(stage: Stage, _slot: int) -> AsyncIterator[None]:
    """A power cut."""
    await asyncio.to_thread(stage.node.kill)
    yield
    await asyncio.to_thread(stage.node.start)


@asynccontextmanager
async def broker_restarted(stage: Stage, _slot: int) -> AsyncIterator[None]:
    """As an administrator would."""
    await asyncio.to_thread(stage.node.restart)
    yield


@asynccontextmanager
async def broker_frozen(stage: Stage, _slot: int) -> AsyncIterator[None]:
    """It stands still."""
    pid = stage.node.pids[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def memory_alarm(stage: Stage, _slot: int) -> AsyncIterator[None]:
    """It takes no message from anybody."""
    await stage.arena.ctl(WATERMARK, "absolute", "1")
    yield
    await stage.arena.ctl(WATERMARK, "absolute", "1GB")


@asynccontextmanager
async def connections_closed(stage: Stage, _slot: int) -> AsyncIterator[None]:
    """An administrator closes them all."""
    await stage.arena.ctl("close_all_connections", "maintenance")
    yield


# -- the line between a worker and the broker -------------------------------------------------------------------------


@asynccontextmanager
async def line_cut(stage: Stage, slot: int) -> AsyncIterator[None]:
    """RST."""
    await stage.replicas[slot].proxy.cut()
    yield


@asynccontextmanager
async def line_ended(stage: Stage, slot: int) -> AsyncIterator[None]:
    """FIN, and nobody listens for a while."""
    proxy = stage.replicas[slot].proxy
    await proxy.refuse()
    await proxy.finish()
    yield
    async with asyncio.timeout(PORT_S):
        while not await _listens_again(proxy):  # noqa: ASYNC110 - nobody tells when a port is free
            await asyncio.sleep(1.0)


async def _listens_again(proxy: TcpProxy) -> bool:
    """Somebody's outgoing connection may have been given its port meanwhile."""
    try:
        await proxy.heal()
    except OSError:
        return False
    return True


def line_dark(*ways: Way) -> Act:
    """Half open: in these directions (none: in both) nothing arrives, and nobody is told."""

    @asynccontextmanager
    async def act(stage: Stage, slot: int) -> AsyncIterator[None]:
        proxy = stage.replicas[slot].proxy
        proxy.blackhole(*ways)
        yield
        await proxy.heal()

    return act


@asynccontextmanager
async def line_slow(stage: Stage, slot: int) -> AsyncIterator[None]:
    """Bytes trickle."""
    proxy = stage.replicas[slot].proxy
    proxy.slow(bytes_per_s=CRAWL_BYTES_PER_S, delay_s=0.05)
    yield
    await proxy.heal()


# -- the platform -----------------------------------------------------------------------------------------------------


def platform(**fault: Any) -> Act:
    """A fault that the stand-in knows, see ``worker/simulator/faults.py``."""

    @asynccontextmanager
    async def act(stage: Stage, _slot: int) -> AsyncIterator[None]:
        await stage.arena.fault(**fault)
        yield
        await stage.arena.simulator.clear_faults()

    return act


def options(**changes: Any) -> Act:
    """The stand-in behaves in another way, see ``worker/simulator/options.py``."""

    @asynccontextmanager
    async def act(stage: Stage, _slot: int) -> AsyncIterator[None]:
        usual = {name: getattr(stage.arena.simulator.options, name) for name in changes}
        stage.arena.set_options(**changes)
        yield
        stage.arena.set_options(**usual)

    return act


@asynccontextmanager
async def tokens_revoked(stage: Stage, _slot: int) -> AsyncIterator[None]:
    """Every token is void, and no new one is to be had for a while."""
    await stage.arena.fault(kind="status", on="token", status=503, standing=True)
    stage.platform.tokens.revoke_all()
    yield
    await stage.arena.simulator.clear_faults()


# -- all of them ------------------------------------------------------------------------------------------------------

AT_ONCE = (0.0, 0.0)


def _fault(name: str, weight: float, lasts_s: tuple[float, float], needs: str, act: Act) -> Fault:
    ends_life = act in (worker_killed, worker_stopped)
    return Fault(name=name, weight=weight, lasts_s=lasts_s, needs=tuple(needs.split()), act=act, ends_life=ends_life)


def _platform(name: str, weight: float, lasts_s: tuple[float, float], **fault: Any) -> Fault:
    return _fault(f"platform {name}", weight, lasts_s, "platform", platform(**fault))


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        _fault("worker killed", 4, (0.0, 5.0), "worker", worker_killed),
        _fault("worker stopped", 3, (0.0, 5.0), "worker", worker_stopped),
        _fault("worker frozen", 3, (1.0, 20.0), "worker", worker_frozen),
        _fault("worker paused by hand", 1, (1.0, 10.0), "worker", paused_by_hand),
        _fault("broker killed", 1.5, (0.0, 3.0), "broker", broker_killed),
        _fault("broker restarted", 0.7, AT_ONCE, "broker", broker_restarted),
        _fault("broker frozen", 1, (1.0, 15.0), "broker", broker_frozen),
        _fault("broker alarm", 1, (1.0, 10.0), "broker", memory_alarm),
        _fault("broker closes connections", 1, AT_ONCE, "broker", connections_closed),
        _fault("line cut", 3, AT_ONCE, "line", line_cut),
        _fault("line ended", 2, (0.0, 8.0), "line", line_ended),
        _fault("line deaf", 1, (2.0, 20.0), "line", line_dark(Way.UP)),
        _fault("line mute", 1, (2.0, 20.0), "line", line_dark(Way.DOWN)),
        _fault("line dark", 1, (2.0, 20.0), "line", line_dark()),
        _fault("line slow", 1, (2.0, 15.0), "line", line_slow),
        _platform("down", 2, (1.0, 15.0), kind="refuse", standing=True),
        _platform("503", 1, (1.0, 12.0), kind="status", status=503, retry_after=2, standing=True),
        _platform("429", 1, (1.0, 8.0), kind="status", status=429, retry_after=1, standing=True),
        _platform("500 at random", 2, (2.0, 12.0), kind="status", status=500, rate=0.5),
        _platform("500 after applying", 1, (2.0, 12.0), kind="status", status=500, applied=True, rate=0.5),
        _platform("refuses everything", 1, (1.0, 10.0), kind="status", status=400, standing=True),
        _platform("forbids everything", 1, (1.0, 10.0), kind="status", status=403, standing=True),
        _platform("not found", 0.5, (1.0, 10.0), kind="status", status=404, standing=True),
        _platform("internal errors", 1, (1.0, 10.0), kind="errors", standing=True),
        _platform("masked errors", 1, (1.0, 10.0), kind="masked", standing=True),
        _platform("maintenance page", 1, (1.0, 10.0), kind="html", standing=True),
        _platform("resets before applying", 1, (2.0, 12.0), kind="reset_before", rate=0.4),
        _platform("resets after applying", 2, (2.0, 12.0), kind="reset_after", rate=0.4),
        _platform("cut short", 1, (2.0, 12.0), kind="cut_short", rate=0.4),
        _platform("hangs at times", 1, (2.0, 12.0), kind="hang", rate=0.05),
        _platform("slow", 2, (2.0, 15.0), kind="delay", seconds=1.5, standing=True),
        _fault("tokens revoked", 2, (0.0, 8.0), "platform", tokens_revoked),
        _fault("orders in trouble", 2, (2.0, 15.0), "platform", options(busy_orders=dict.fromkeys(HOT_ORDERS, 3))),
        _fault("refuses batches", 2, (5.0, 15.0), "platform", options(refusal="http_400")),
    )
}
