"""Options of the stand-in platform: what the real platform's pages leave open, each with a named default.

They can be changed while it runs (``/_sim/options``). What is documented of the platform and what is only assumed is
listed in ``behaviours.py``; a test holds the two lists together.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

EDIT_SCOPE = "order-it.order-manager.edit"
VIEW_SCOPE = "order-it.order-manager.view"
MASKED = "Internal server error"
MAX_LATENCY_S = 3600.0

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
OrderId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class NotAllowed(ValueError):
    """Input for the control interface that is not allowed; ``allowed`` says what is."""

    def __init__(self, problem: str, allowed: Mapping[str, str] | Iterable[str]) -> None:
        super().__init__(problem)
        self.allowed = dict(allowed) if isinstance(allowed, Mapping) else list(allowed)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the stand-in behaves. A limit of 0 means "no limit"; durations are seconds."""

    # Who may call
    client_id: str = "simulated-client"
    client_secret: str = "simulated-secret"  # noqa: S105  an invented default, shown in the README
    scopes: tuple[str, ...] = (EDIT_SCOPE, VIEW_SCOPE)
    blank_scope: Literal["none", "all"] = "none"
    token_lifetime_s: Annotated[float, msgspec.Meta(gt=0)] = 3600
    permission_refusal: Literal["http_403", "graphql"] = "http_403"
    # Which orders exist, and what it does to them
    auto_create: bool = True
    unknown_orders: Literal["error", "null", "omit"] = "error"
    inaccessible_orders: frozenset[OrderId] = frozenset()
    transitions: Literal["off", "on"] = "off"
    known_statuses_only: bool = False
    terminal_statuses: frozenset[int] = frozenset()
    status_after_dispatch: Literal[8, 64, 516] = 8
    remap: dict[str, str] = {}
    # What it refuses
    batch: Literal["per_order", "atomic"] = "per_order"
    refusal: Literal["path", "no_path", "http_400"] = "path"
    rejected_orders: dict[OrderId, str] = {}
    rejected_values: dict[str, dict[str, str]] = {}
    busy_orders: dict[OrderId, int] = {}
    busy_text: str = MASKED
    max_batch: Count = 0
    empty_list: Literal["accept", "refuse"] = "accept"
    request_error_status: Literal[200, 400] = 200
    # How it answers
    shuffle_replies: Literal["answered", "all", "off"] = "answered"
    numeric_strings: bool = False
    # Bounds are checked by hand: msgspec 0.22 writes past its memory when a union holds both Meta and a fixed tuple.
    latency_s: float | tuple[float, float] = 0.0
    rate_per_hour: Count = 0
    rate_per_day: Count = 0
    seed: int = 0
    # What it remembers
    keep_history: bool = True


def allowed_options() -> dict[str, str]:
    """For each option: the type or the values it takes, readable."""
    return {name: _readable(hint) for name, hint in get_type_hints(Options).items()}


def changed(options: Options, changes: Any) -> Options:
    """Options with ``changes`` (decoded JSON) on top; raises NotAllowed that names the option and what it takes."""
    if not isinstance(changes, dict):
        raise NotAllowed("expected a JSON object of options", allowed_options())
    merged = {**msgspec.to_builtins(options, str_keys=True), **changes}
    try:
        result = msgspec.convert(merged, Options, str_keys=True)
    except msgspec.ValidationError as error:
        raise NotAllowed(str(error), _relevant(str(error))) from None
    low, high = latency_bounds(result)
    if not 0 <= low <= high <= MAX_LATENCY_S:
        raise NotAllowed(f"latency_s must be within 0 and {MAX_LATENCY_S:g}", {"latency_s": "seconds | [least, most]"})
    return result


def latency_bounds(options: Options) -> tuple[float, float]:
    """The shortest and the longest latency, in seconds."""
    latency = options.latency_s
    return latency if isinstance(latency, tuple) else (latency, latency)


def _relevant(problem: str) -> dict[str, str]:
    """What the option named in ``problem`` takes, or all of them where the name itself is unknown."""
    every = allowed_options()
    named = {name: text for name, text in every.items() if f"`$.{name}" in problem}
    return named or every


def _readable(hint: Any) -> str:
    if getattr(hint, "__name__", "") in ("str", "bool", "int", "float"):
        return str(hint.__name__)
    return str(hint).replace("typing.", "").replace("worker.simulator.options.", "")
