"""What a durable journal costs of the main job: the same load with each journal, side by side in one run."""

import pytest

from tests.benchmarks.loads import even
from tests.benchmarks.record import Record
from tests.benchmarks.runs import Stage
from tests.support.postgres import PrivatePostgres
from worker.adapters.journal.upgrading import upgrade

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(1800)]

ORDERS = 6_000
PER_ORDER = 5
LEAST_SHARE = 0.75
ROUNDS = 3


async def test_a_durable_journal_costs_a_quarter_at_most(stage: Stage, record: Record) -> None:
    """Of the events per second with a journal in memory; the best of three rounds of each, in turn.

    Every round has journals of its own: what one of them knows already is covered, and fills no call.
    """
    with PrivatePostgres(durable=True) as server:
        best: dict[str, float] = {}
        runs = []
        for number in range(ROUNDS):
            postgres = server.create(f"bench_{number}")
            await upgrade(postgres)
            sqlite = f"sqlite:///{stage.folder / f'bench-{number}.db'}"
            urls = {"memory": "memory", "sqlite": sqlite, "postgres": postgres}
            load = even("journals", orders=ORDERS, per_order=PER_ORDER, seed=number)
            for name, url in urls.items():
                run = await stage.worker(load, name=f"{name}, round {number + 1}", journal_url=url, max_batch="100")
                runs.append([run])
                best[name] = max(best.get(name, 0.0), run.rate)
    record.compare(*runs)
    shares = {name: best[name] / best["memory"] for name in best}
    record.say(f"share of memory's rate: {shares}")

    assert min(shares.values()) >= LEAST_SHARE
