"""What of the stand-in is the platform's word, and what is assumed: the page behind ``/_sim/``.

DOCUMENTED: stated on a public page of the platform. ASSUMED: inferred, seen in other people's programs only, or made
up; such a behaviour never proves anything about the platform. ``options`` names the options that switch it.
"""

from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

Mark = Literal["DOCUMENTED", "ASSUMED"]


@dataclass(slots=True, frozen=True)
class Behaviour:
    """One behaviour of the stand-in."""

    subject: str
    mark: Mark
    text: str
    options: tuple[str, ...] = ()


D: Mark = "DOCUMENTED"
A: Mark = "ASSUMED"

BEHAVIOURS = (
    Behaviour(
        "token",
        D,
        "POST /token, form-encoded: client_id, client_secret, grant_type=client_credentials, scope.",
        ("client_id", "client_secret"),
    ),
    Behaviour(
        "token", D, "The reply has token_type, expires_in, access_token, in this order; 3600 s.", ("token_lifetime_s",)
    ),
    Behaviour("token", A, "Tokens are opaque; earlier tokens stay valid when a new one is issued."),
    Behaviour(
        "token",
        A,
        "Errors are those of league/oauth2-server: invalid_client (401), invalid_request, invalid_scope and so on.",
    ),
    Behaviour(
        "scope",
        D,
        "updateOrders needs the user permission order-it.order-manager.edit; orders needs order-it.order-manager.view.",
    ),
    Behaviour(
        "scope",
        A,
        "The permission is also the scope string of updateOrders; a client may ask for these scopes only.",
        ("scopes",),
    ),
    Behaviour("scope", A, "A blank scope gives a token without any permission.", ("blank_scope",)),
    Behaviour(
        "scope", A, "A missing scope is HTTP 403 with a REST error body naming the scope.", ("permission_refusal",)
    ),
    Behaviour("token", A, "A missing, unknown or expired token is HTTP 401 with a REST error body."),
    Behaviour("access", D, "The user needs access to the companies of an order."),
    Behaviour("access", A, "An order without access is answered like an unknown one.", ("inaccessible_orders",)),
    Behaviour("graphql", D, "POST with application/json, query and variables; everything hangs off the field core."),
    Behaviour("graphql", A, "Other content types are accepted too; the path is / or /graphql."),
    Behaviour(
        "graphql",
        A,
        "Errors of the document or its variables: HTTP 200, errors without data.",
        ("request_error_status",),
    ),
    Behaviour(
        "graphql",
        A,
        "Order ids are an integer scalar of 64 bits (Int64); statuses come back as a scalar of their own (StatusCode).",
    ),
    Behaviour(
        "updateOrders",
        D,
        "A list of OrderInput changes the fields given and returns the fields selected (example: order 46140199).",
    ),
    Behaviour(
        "updateOrders", A, "OrderInput also takes shipping_tracking; null clears a text and leaves a status alone."
    ),
    Behaviour("updateOrders", A, "Every id is an order that exists; it starts as Received (1).", ("auto_create",)),
    Behaviour("updateOrders", A, "An unknown order is an error (or a null entry, or left out).", ("unknown_orders",)),
    Behaviour("updateOrders", A, "One refused order does not stop the others.", ("batch",)),
    Behaviour(
        "updateOrders",
        A,
        "A refused order is null and blamed by a path with its index in the input (or without path,"
        " or the call is HTTP 400 and nothing is applied).",
        ("refusal",),
    ),
    Behaviour("updateOrders", A, "Entries come back in random order; nulls stay at their index.", ("shuffle_replies",)),
    Behaviour("updateOrders", A, "An order named twice is written twice, in the order given, and returned twice."),
    Behaviour("updateOrders", A, "No limit of orders per call; too many are refused as a whole.", ("max_batch",)),
    Behaviour("updateOrders", A, "An empty list is accepted and changes nothing.", ("empty_list",)),
    Behaviour(
        "updateOrders",
        A,
        "Chosen orders or values are refused with a chosen text; chosen orders are busy so many times (-1: always).",
        ("rejected_orders", "rejected_values", "busy_orders", "busy_text"),
    ),
    Behaviour("updateOrders", A, "Integers may come back as strings.", ("numeric_strings",)),
    Behaviour("status", D, "Codes and names 0 to 517."),
    Behaviour(
        "status", A, "600 is Consolidating; any other code is accepted and called Unknown.", ("known_statuses_only",)
    ),
    Behaviour(
        "status",
        A,
        "No transition rules; switched on, a wrong one is refused as 'Invalid order status'.",
        ("transitions",),
    ),
    Behaviour(
        "status",
        A,
        "No status is final; an order in a terminal one keeps it, and the reply shows it.",
        ("terminal_statuses",),
    ),
    Behaviour(
        "status",
        D,
        "A company setting can turn Dispatched (8) into 516; 64 says that the retailer was notified.",
    ),
    Behaviour(
        "status",
        A,
        "Off by default, and done at once, so the reply of the same call shows it.",
        ("status_after_dispatch",),
    ),
    Behaviour("status", D, "Carrier and method of incoming orders are mapped to equivalents."),
    Behaviour("status", A, "Values set by updateOrders are stored as sent unless mapped.", ("remap",)),
    Behaviour(
        "limits",
        D,
        "The Create Orders API answers HTTP 400 when 1,000 requests per hour or 10,000 per day are exceeded.",
    ),
    Behaviour(
        "limits",
        A,
        "No limit here by default; with one, HTTP 400 and a REST error body. The code 9429 is ours.",
        ("rate_per_hour", "rate_per_day"),
    ),
    Behaviour("orders", D, "An orders query exists."),
    Behaviour(
        "orders",
        A,
        "Its form is that of products: filter (Json), page, count (at most 250), pages and items; sorted by id.",
    ),
    Behaviour(
        "time",
        A,
        "Latency is split at random before and after applying; a call that its client gave up is applied all the same.",
        ("latency_s", "seed"),
    ),
    Behaviour(
        "history",
        A,
        "Every change and the orders of the last calls are kept; switched off, only states and counters are.",
        ("keep_history",),
    ),
    Behaviour("faults", A, "Every fault under /_sim/faults: the platform's own failures are not published."),
)

ENDPOINTS = (
    ("GET /_sim/", "this page (JSON with Accept: application/json)"),
    ("GET /_sim/state", "counters, options, faults"),
    ("GET /_sim/orders?id=1,2", "orders, one JSON object per line"),
    ("POST /_sim/orders", 'make or overwrite orders: {"id": 1, "status": 128, ...} or a list of them'),
    ("GET /_sim/history?id=1,2", "every change, one JSON object per line"),
    ("GET /_sim/calls", "the last 10,000 calls, one JSON object per line"),
    ("PATCH /_sim/options", "change some options; PUT: the others go back to their defaults"),
    ("GET /_sim/faults", "what is planned to go wrong"),
    ("POST /_sim/faults", 'plan faults: {"kind": "status", "status": 503, "next": 3} or a list of them'),
    ("DELETE /_sim/faults", "nothing goes wrong any more"),
    ("DELETE /_sim/tokens", "make every token unknown at once"),
    ("POST /_sim/reset", "forget orders, history, calls, counters and faults; options and tokens stay"),
)


def as_json() -> dict[str, Any]:
    """The page for programs."""
    return {"behaviours": [asdict(item) for item in BEHAVIOURS], "endpoints": dict(ENDPOINTS)}


def as_html() -> str:
    """The page for people."""
    rows = "".join(
        f"<tr><td>{escape(item.subject)}</td><td>{item.mark}</td><td>{escape(item.text)}</td>"
        f"<td><code>{escape(', '.join(item.options))}</code></td></tr>"
        for item in BEHAVIOURS
    )
    endpoints = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in ENDPOINTS
    )
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Stand-in platform</title></head><body>"
        "<h1>Stand-in platform</h1><p>This is not the platform. DOCUMENTED: stated on its public pages. ASSUMED:"
        " inferred or made up; it proves nothing about the platform.</p>"
        "<table><tr><th>Subject</th><th>Mark</th><th>Behaviour</th>"
        f"<th>Options</th></tr>{rows}</table><h2>Control</h2><table>{endpoints}</table></body></html>\n"
    )
