"""Which call gets which fault: scripts, standing faults, random ones."""

from tests.contract.simulator_client import Clock, orders, running
from worker.simulator.faults import Fault, FaultPlan, read_faults


async def test_script_is_played_in_its_order() -> None:
    """Queued faults come one after the other, each for its number of calls."""
    async with running() as client:
        script = [{"kind": "status", "status": 503, "next": 2}, {"kind": "status", "status": 429}]
        await client.sim("POST", "faults", script)
        statuses = [(await client.update(*orders(1))).status for _ in range(4)]

        assert statuses == [503, 503, 429, 200]


def test_standing_fault_ends_at_its_time() -> None:
    """A fault for so many seconds is over after them; a script goes first."""
    clock = Clock()
    plan = FaultPlan(clock, 0)
    plan.add(Fault(kind="status", status=503, for_s=5.0))
    plan.add(Fault(kind="null"))
    kinds = [picked.kind if (picked := plan.pick("graphql")) else None for _ in range(2)]
    clock.now_s += 5

    assert (kinds, plan.pick("graphql")) == (["null", "status"], None)


def test_random_faults_depend_on_the_seed_only() -> None:
    """The same seed hits the same calls, about as many as the rate says."""
    runs = []
    for seed in (7, 7, 8):
        plan = FaultPlan(Clock(), seed)
        plan.add(Fault(kind="status", rate=0.2))
        runs.append([plan.pick("graphql") is not None for _ in range(1000)])

    assert runs[0] == runs[1] != runs[2]
    assert 150 < sum(runs[0]) < 250


def test_faults_are_read_as_one_or_many() -> None:
    """A single object is a list of one."""
    assert read_faults({"kind": "null"}) == read_faults([{"kind": "null"}]) == [Fault(kind="null")]
