"""Wires up what only figures need: nothing here is in the way of an event."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from worker.adapters.amqp.connection import Endpoint, Link, vhost_of
from worker.adapters.amqp.depths import QueueLook
from worker.adapters.amqp.topology import Topology
from worker.adapters.management import ManagementApi
from worker.config import Settings
from worker.core.vitals import QueueKind
from worker.depths import QueueDepths

LOOK_TIMEOUT_S = 3.0
"""Longest wait for the management API, for figures that nobody has to have."""


async def queue_depths(
    settings: Settings, plan: Topology, endpoint: Endpoint, stack: AsyncExitStack, *, wanted: Callable[[], bool]
) -> QueueDepths:
    """Looks at the queues of the plan over a connection of its own and, where it is set, the management API.

    The stack closes them.
    """
    link = Link(endpoint, name="order-worker look")
    stack.push_async_callback(link.close)
    unacked = None
    if settings.management_url:
        api = await stack.enter_async_context(ManagementApi(settings.management_url, timeout_s=LOOK_TIMEOUT_S))
        unacked = partial(api.unacked, vhost_of(settings.broker.urls[0]))
    queues = {
        QueueKind.WORK: plan.work_queues,
        QueueKind.RETRY: plan.retry_exchanges,  # each has a queue of its name
        QueueKind.DEAD: [plan.dead_queue],
    }
    ready = QueueLook(link, wanted=wanted).ready
    return await stack.enter_async_context(QueueDepths(queues, ready=ready, unacked=unacked, clock=time.monotonic))
