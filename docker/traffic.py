"""Demo traffic: events of a production line as NDJSON on standard output, for ``order-worker publish -``.

    traffic.py --rate 20 | order-worker publish - --force

A few hundred orders move through their life, over and over. One event in 200 names a carrier that the stand-in platform
is told to refuse, and one in 500 has a field that nobody knows: these become dead letters, so that there are some to
look at. Events carry no ``occurred_at``: the publishing command stamps them when they come. Runs until it is stopped or
nobody reads any more; ``--count`` ends it earlier. Standard library only.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice

REFUSED_CARRIER = "Pigeon Post"
"""What compose.yaml has the stand-in refuse."""
ORDERS = range(46_140_000, 46_140_300)
# None of them is terminal: that would be the end of the order, and of the traffic.
LIFE = (512, 513, 4, 32, 256, 515, 8)
SERVICES = {"Royal Mail": ("Tracked 24", "Tracked 48"), "DPD": ("Next Day", "Two Day"), "Evri": ("Standard",)}


def events(chance: random.Random) -> Iterator[dict[str, object]]:
    """Events without end."""
    steps = dict.fromkeys(ORDERS, 0)
    while True:
        order_id = chance.choice(ORDERS)
        steps[order_id] = (steps[order_id] + 1) % len(LIFE)
        event: dict[str, object] = {"id": order_id, "status": LIFE[steps[order_id]]}
        if chance.random() < 1 / 3:
            carrier = chance.choice(list(SERVICES))
            event |= {"shipping_carrier": carrier, "shipping_method": chance.choice(SERVICES[carrier])}
        if chance.random() < 1 / 200:
            event["shipping_carrier"] = REFUSED_CARRIER
        if chance.random() < 1 / 500:
            event["colour"] = "green"
        yield event


def main() -> int:
    """Write them at the rate asked for."""
    parser = argparse.ArgumentParser(description="Demo traffic as NDJSON.")
    parser.add_argument("--rate", type=float, default=20.0, help="events per second")
    parser.add_argument("--count", type=int, default=None, help="how many; default: without end")
    parser.add_argument("--seed", type=int, default=None, help="the same traffic again")
    given = parser.parse_args()
    # Repeatable data, no secret.
    for event in islice(events(random.Random(given.seed)), given.count):  # noqa: S311
        # To the descriptor itself: the command behind the pipe stamps an event when it comes, and nothing may wait in a
        # buffer meanwhile, nor be complained about in the end.
        try:
            os.write(sys.stdout.fileno(), f"{json.dumps(event)}\n".encode())
        except BrokenPipeError:
            return 1
        time.sleep(1 / given.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
