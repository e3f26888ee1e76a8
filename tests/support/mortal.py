"""The worker, except that it dies at once when it is about to send a certain order; thresholds of its caution given.

    python -m tests.support.mortal <order id> <alone from> <crash suspect from>

Settings as for ``order-worker run``.
"""

import os
import sys
from collections.abc import Mapping
from functools import partial
from unittest import mock

from worker import assembling
from worker.adapters.amqp.partitions import Partitions
from worker.caller import Caller
from worker.cli.run import run
from worker.core.model import Fields
from worker.core.verdict import Judgement
from worker.pipeline import Limits


class MortalCaller(Caller):
    """Ends the process like a fault in C code or the kernel's memory killer: nothing is tidied up."""

    deadly = 0

    async def call(self, requested: Mapping[int, Fields]) -> Judgement:
        """See ``Caller.call``."""
        if self.deadly in requested:
            os._exit(1)
        return await super().call(requested)


def main() -> None:
    """Work with the replaced parts."""
    deadly, alone_from, crash_suspect_from = map(int, sys.argv[1:])
    MortalCaller.deadly = deadly
    with (
        mock.patch.object(assembling, "Caller", MortalCaller),
        mock.patch.object(assembling, "Partitions", partial(Partitions, alone_from=alone_from)),
        mock.patch.object(assembling, "Limits", partial(Limits, crash_suspect_from=crash_suspect_from)),
    ):
        run()


if __name__ == "__main__":
    main()
