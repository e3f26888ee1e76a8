"""``order-worker simulate``: the stand-in platform as a process of its own."""

import asyncio
import json
import signal
from dataclasses import asdict
from typing import Annotated, Any

import typer

from worker.simulator.options import NotAllowed, Options, changed
from worker.simulator.server import Simulator

Host = Annotated[str, typer.Option(help="Interface to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the platform (OAuth and GraphQL); 0: any free one.")]
SimPort = Annotated[int, typer.Option(min=0, max=65535, help="Port of the control interface /_sim/; 0: any free one.")]
ClientId = Annotated[str | None, typer.Option(help="Client id of the OAuth user.")]
ClientSecret = Annotated[str | None, typer.Option(help="Client secret of the OAuth user.")]
Latency = Annotated[str | None, typer.Option(help="Seconds a call takes: 0.02, or a range 0.005:0.06.")]
Lifetime = Annotated[float | None, typer.Option(help="Seconds until a token expires.")]
Unknown = Annotated[str | None, typer.Option(help="Unknown orders: error, null or omit (with --only-seeded).")]
OnlySeeded = Annotated[bool, typer.Option("--only-seeded", help="Only orders put there by POST /_sim/orders exist.")]
Batch = Annotated[str | None, typer.Option(help="per_order or atomic.")]
PerHour = Annotated[int | None, typer.Option(help="Calls per hour and client; 0: no limit.")]
PerDay = Annotated[int | None, typer.Option(help="Calls per day and client; 0: no limit.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="Any other option: NAME=JSON, repeatable.")]


def simulate(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8090,
    sim_port: SimPort = 8091,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    latency: Latency = None,
    token_lifetime: Lifetime = None,
    unknown_orders: Unknown = None,
    only_seeded: OnlySeeded = False,
    batch: Batch = None,
    rate_per_hour: PerHour = None,
    rate_per_day: PerDay = None,
    seed: Seed = None,
    settings: Setting = None,
) -> None:
    """Run the stand-in platform until SIGTERM or SIGINT. It prints its addresses as one JSON line when it is ready."""
    given = {
        "client_id": client_id,
        "client_secret": client_secret,
        "latency_s": None if latency is None else _latency(latency),
        "token_lifetime_s": token_lifetime,
        "unknown_orders": unknown_orders,
        "auto_create": False if only_seeded else None,
        "batch": batch,
        "rate_per_hour": rate_per_hour,
        "rate_per_day": rate_per_day,
        "seed": seed,
    }
    named = {name: value for name, value in given.items() if value is not None}
    asyncio.run(_serve(_options(named | _settings(settings or [])), host=host, port=port, sim_port=sim_port))


async def _serve(options: Options, *, host: str, port: int, sim_port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Simulator(options).serve(host, port, sim_port) as address:
            print(json.dumps(asdict(address)), flush=True)
            await stop.wait()
    except OSError as error:
        raise typer.BadParameter(f"cannot listen on {host}, port {port} and {sim_port}: {error.strerror}") from error


def _options(given: dict[str, Any]) -> Options:
    try:
        return changed(Options(), given)
    except NotAllowed as error:
        raise typer.BadParameter(f"{error}. Allowed: {error.allowed}") from error


def _latency(text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        raise typer.BadParameter(f"--latency takes seconds or MIN:MAX, not {text!r}") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _settings(texts: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"--set takes NAME=JSON, not {text!r}")
        try:
            result[name] = json.loads(value)
        except ValueError:
            result[name] = value  # a bare word is a string: --set refusal=no_path
    return result
