"""The worker, except that it freezes itself when it is about to send a certain order for the first time, as a machine
does that is suspended: after the claim and before the call. Short times as in ``impatient.py``.

    python -m tests.support.stalling <order id>

Goes on at SIGCONT. Settings as for ``order-worker run``.
"""

import os
import signal
import sys
from collections.abc import Mapping
from unittest import mock

from tests.support.impatient import impatience
from worker import assembling
from worker.caller import Caller
from worker.cli.run import run
from worker.core.model import Fields
from worker.core.verdict import Judgement


class StallingCaller(Caller):
    """Freezes the whole process, once."""

    order_id = 0

    async def call(self, requested: Mapping[int, Fields]) -> Judgement:
        """See ``Caller.call``."""
        if StallingCaller.order_id in requested:
            StallingCaller.order_id = 0
            os.kill(os.getpid(), signal.SIGSTOP)
        return await super().call(requested)


def main() -> None:
    """Work with the replaced parts."""
    StallingCaller.order_id = int(sys.argv[1])
    with impatience(), mock.patch.object(assembling, "Caller", StallingCaller):
        run()


if __name__ == "__main__":
    main()
