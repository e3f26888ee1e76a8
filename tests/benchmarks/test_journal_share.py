"""What a durable journal costs of the main job: the same load with each journal, side by side in one run."""

import pytest

from tests.benchmarks.conftest import Stage
from tests.benchmarks.load import Load
from tests.benchmarks.measure import HEADING, conditions, show
from tests.benchmarks.test_main_job import figures, work_off
from tests.support.postgres import PrivatePostgres
from worker.adapters.journal.upgrading import upgrade

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(900)]

ORDERS = 6_000
PER_ORDER = 5
LEAST_SHARE = 0.75
ROUNDS = 3


async def test_a_durable_journal_costs_a_quarter_at_most(stage: Stage) -> None:
    """Of the events per second with a journal in memory; the best of three rounds of each, in turn.

    Every round has journals of its own: what one of them knows already is covered, and fills no call.
    """
    measured_under = conditions()
    with PrivatePostgres(durable=True) as server:
        best: dict[str, float] = {}
        rows = []
        for number in range(ROUNDS):
            postgres = server.create(f"bench_{number}")
            await upgrade(postgres)
            sqlite = f"sqlite:///{stage.folder / f'bench-{number}.db'}"
            urls = {"memory": "memory", "sqlite": sqlite, "postgres": postgres}
            load = Load.make(orders=ORDERS, per_order=PER_ORDER, seed=number, in_order=True)
            for name, url in urls.items():
                await stage.platform.reset()
                await stage.queues.publish(load.events)
                worker, peak_mb = await work_off(stage, journal_url=url)
                ours = await figures(stage, load, worker, peak_mb)
                rows.append(ours.row(f"{name}, round {number + 1}"))
                best[name] = max(best.get(name, 0.0), ours.rate)
    shares = {name: best[name] / best["memory"] for name in best}
    show(measured_under, HEADING, *rows, f"share of memory's rate: {shares}")

    assert min(shares.values()) >= LEAST_SHARE
