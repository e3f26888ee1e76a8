"""``order-worker pause`` and ``resume``: ask a running worker, through its admin interface."""

import asyncio
import json
from typing import Annotated, Any

import typer

from worker.adapters.adminclient import ask
from worker.cli.config import start

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def pause(
    *,
    reason: Annotated[str, typer.Option(help="Why, for those who find it paused.")] = "",
    as_json: Json = False,
) -> None:
    """Have the running worker hand everything back to the broker and consume nothing until ``resume``."""
    detail = {"detail": reason} if reason else {}
    _, answer = asyncio.run(ask(start().admin, "pause", detail))
    _tell(answer, "paused; `order-worker resume` ends it", as_json=as_json)


def resume(*, as_json: Json = False) -> None:
    """End a pause by hand, or one of the storm guard. Exit code 1 if there was none."""
    status, answer = asyncio.run(ask(start().admin, "resume"))
    why = f": {answer['reason']} ({answer.get('detail')})" if answer.get("reason") else ""
    _tell(answer, "consuming again" if status == 200 else f"it was not paused by hand{why}", as_json=as_json)
    if status != 200:
        raise typer.Exit(1)


def _tell(answer: dict[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(answer) if as_json else text)
