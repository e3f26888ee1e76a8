"""``python -m tests.chaos``: a campaign on a private broker. Exit code 1 if a promise broke."""

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.chaos.campaign import Campaign
from tests.chaos.nemesis import FAULTS
from tests.chaos.report import Report
from tests.chaos.schedule import Pace, Planned, plan
from tests.chaos.stage import Stage
from tests.chaos.table import LINE_EVERY_S, View
from worker.adapters.privatebroker import PrivateBroker


async def campaign(
    node: PrivateBroker,
    folder: Path,
    view: View,
    planned: Sequence[Planned],
    *,
    seed: int,
    length_s: float,
    rate: float,
) -> Report:
    """One campaign on a running node; plan, faults, verdict and the workers' logs are files in ``folder``."""
    (folder / "plan.txt").write_text("\n".join(map(str, planned)) + "\n")
    async with Stage(node, folder, seed, rate) as stage:
        report = await Campaign(stage, planned, length_s=length_s, view=view, log=folder / "faults.txt").run()
    (folder / "verdict.txt").write_text(f"{report}\n")
    (folder / "broker.log").write_text(node.log_text)
    return report


def main() -> int:
    """Read the command line, run, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults happen")
    parser.add_argument("--seed", type=int, default=None, help="of the plan and the load (default: any)")
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    parser.add_argument("--every", type=float, default=LINE_EVERY_S, help="seconds between lines, without a terminal")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs in any case")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="order-worker-chaos-"))
    # Producer and lookout lose their connections all the time, and the library tells of every one.
    logging.getLogger("aiormq").addHandler(logging.NullHandler())
    view = View(Console(), line_every_s=asked.every)
    view.tell(f"seed {seed}; plan, faults and logs are in {folder}")
    length_s = 60 * asked.minutes
    planned = plan(seed, list(FAULTS.values()), length_s=length_s, pace=Pace())
    with PrivateBroker() as node, view:
        report = asyncio.run(campaign(node, folder, view, planned, seed=seed, length_s=length_s, rate=asked.rate))
    view.tell(str(report))
    if report.broken:
        view.tell((folder / "faults.txt").read_text())
    if report.broken or asked.keep:
        view.tell(f"the same again: make chaos SEED={seed} MINUTES={asked.minutes:g}; the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
