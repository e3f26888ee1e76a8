"""The settings themselves: name, type, bounds, default, and what each is for. ``config.py`` reads and checks them.

The README table has them in this order.
"""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from worker.core import notation
from worker.core.budget import LEAST_PER_DAY, LEAST_PER_HOUR
from worker.core.findings import BROKER_TIMEOUT_S
from worker.core.partition import MOST
from worker.core.settings import (
    DeliveryLane,
    EventLoop,
    HashExchange,
    LogFormat,
    LogLevel,
    Others,
    Payloads,
    TopologyMode,
    TracingMode,
)
from worker.settingfiles import RulesFile, existing_directory
from worker.settingtypes import (
    BrokerName,
    Budget,
    Choice,
    Delays,
    ManagementUrl,
    Numbers,
    OrderIds,
    Positive,
    Seconds,
    WebUrl,
    none_or_lower,
    read_by,
)


class SettingFields(BaseSettings):
    """Each valid on its own."""

    # broker
    amqp_url: Annotated[tuple[str, ...], NoDecode, read_by(notation.broker_urls)] = Field(
        default=("amqp://guest:guest@localhost:5672/",),
        repr=False,
        description="Broker address, amqp:// or amqps://; several, separated by commas, are tried in turn.",
    )
    exchange: BrokerName = Field(default="order-updates", description="Topic exchange that producers publish to.")
    queue: BrokerName = Field(
        default="order-updates.work",
        description="Work queue, and the exchange in front of it that retries come back through.",
    )
    dead_letter_queue: BrokerName = Field(default="order-updates.dead", description="Queue of the dead letters.")
    retry_delays_s: Delays = Field(
        default=(5.0, 30.0, 120.0, 600.0),
        description="Delays of the retry tiers in seconds, ascending, separated by commas.",
    )
    prefetch: int = Field(
        default=2000,
        ge=1,
        le=2000,
        description="Most unsettled messages at a time, 1 to 2000 (the most that quorum queues promise); at least "
        "MAX_BATCH x MAX_IN_FLIGHT.",
    )
    topology: Annotated[TopologyMode, Choice] = Field(
        default=TopologyMode.DECLARE,
        description="declare: make exchanges and queues at start. passive: only check them.",
    )
    delivery_limit: Positive = Field(
        default=100,
        description="How often the broker may redeliver a message before it dead-letters it by itself; positive.",
    )
    heartbeat_s: int = Field(
        default=10, ge=5, le=3600, description="AMQP heartbeat in seconds, 5 or more (shorter ones give false alarms)."
    )
    delivery_lane: Annotated[DeliveryLane, Choice] = Field(
        default=DeliveryLane.AUTO,
        description="auto: deliveries are taken from the connection in bulk, many times as fast, where the AMQP "
        "library is one that the worker knows. ordinary: the library's own way.",
    )
    max_attempts: Positive = Field(default=5, description="How often a message is tried before it is dead-lettered.")

    partitions: int = Field(
        default=1,
        ge=1,
        le=MOST,
        description="Number of work queues, 1 to 64; more than one needs HASH_EXCHANGE and a journal that lasts. "
        "Change it with `order-worker topology --migrate`.",
    )
    hash_exchange: Annotated[HashExchange | None, BeforeValidator(none_or_lower)] = Field(
        default=None,
        description="Exchange type that spreads the orders over the partitions: x-modulus-hash (RabbitMQ 4.3 and newer "
        "have it built in) or x-consistent-hash (plugin rabbitmq_consistent_hash_exchange).",
    )
    worker_index: Annotated[int | None, Budget] = Field(
        default=None,
        ge=0,
        description="Which of the WORKERS this one is, from 0, such as the ordinal of its StatefulSet: partitions "
        "whose number modulo WORKERS is this are its own. RabbitMQ before 4.0 needs it to spread them.",
    )
    workers: Positive = Field(default=1, description="How many workers share the partitions; only for WORKER_INDEX.")
    management_url: ManagementUrl = Field(
        default="",
        repr=False,
        description="RabbitMQ's management API, such as http://user:password@host:15672/; `check` reads it, for what "
        "AMQP does not tell, and /metrics, for messages that are unacknowledged.",
    )

    # platform
    oauth_url: WebUrl = Field(default="https://oauth.kornitx.net/token", description="Token endpoint.")
    client_id: str = Field(default="", description="OAuth client id. Needed by commands that call the platform.")
    client_secret: SecretStr = Field(
        default=SecretStr(""),
        description="OAuth client secret. Needed by commands that call the platform; a secret.",
    )
    oauth_scope: str = Field(
        default="order-it.order-manager.edit", description="OAuth scope; several are separated by blanks; may be empty."
    )
    graphql_url: WebUrl = Field(default="https://graphql.kornitx.net", description="GraphQL endpoint.")
    call_timeout_s: Seconds = Field(
        default=15.0, description="Longest wait for one call in seconds; below DRAIN_GRACE_S."
    )

    rate_per_hour: Annotated[int | None, Budget] = Field(
        default=None,
        ge=LEAST_PER_HOUR,
        description="Most calls in any hour, 6 or more; empty: no limit. Batches get fuller instead of more.",
    )
    rate_per_day: Annotated[int | None, Budget] = Field(
        default=None,
        ge=LEAST_PER_DAY,
        description="Most calls in any day, 144 or more, spread over its hours; empty: no limit.",
    )

    # batching and time
    max_batch: Positive = Field(default=100, description="Most orders in one call.")
    max_batch_bytes: int = Field(
        default=1024 * 1024,
        ge=65_536,
        description="Most bytes in one call; at least 65536, the size of the largest event.",
    )
    linger_s: float = Field(
        default=0.02,
        ge=0,
        allow_inf_nan=False,
        description="Longest wait of the oldest update for a fuller batch, in seconds; once more for each call in "
        "flight. What comes alone to an idle worker does not wait.",
    )
    max_in_flight: Positive = Field(default=4, description="Most calls at a time.")
    hold_limit_s: Seconds = Field(
        default=300.0,
        description="How long messages are kept while the platform is away, in seconds; then they are handed back.",
    )
    max_unsettled_s: float = Field(
        default=900.0,
        gt=0,
        lt=BROKER_TIMEOUT_S,
        description="Longest time a message stays unsettled, in seconds; below 1800, where the broker takes it "
        "away, and above HOLD_LIMIT_S + CALL_TIMEOUT_S.",
    )
    drain_grace_s: Seconds = Field(
        default=25.0, description="Longest shutdown in seconds; keep the grace period of the container above it."
    )

    # rules
    max_clock_skew_s: float = Field(
        default=300.0,
        ge=0,
        allow_inf_nan=False,
        description="How far in the future an event may say it happened, in seconds; beyond that it is dead-lettered.",
    )
    extra_fields: Annotated[dict[str, str], NoDecode, read_by(notation.extra_fields)] = Field(
        default={},
        description="More fields of OrderInput to accept and send: shipping_tracking or shipping_tracking:string,"
        "weight:number (string, integer, number, boolean).",
    )
    ignore_fields: Annotated[tuple[str, ...], NoDecode, read_by(notation.ignore_fields)] = Field(
        default=(), description="Event fields that are kept for people and never sent, separated by commas."
    )
    milestone_statuses: Numbers = Field(
        default=(),
        description="Statuses that are sent even if a later one waits, separated by commas; terminal ones always are.",
    )
    terminal_statuses: Numbers = Field(
        default=(64, 128, 516), description="Statuses that an order never leaves, separated by commas."
    )
    allow_orders: OrderIds = Field(
        default=(),
        description="Going live: ids of the only orders that are sent, separated by commas; empty: all. `run` needs "
        "OTHERS=dead-letter beside it.",
    )
    others: Annotated[Others, Choice] = Field(
        default=Others.WAIT,
        description="What becomes of events of other orders than ALLOW_ORDERS. wait: they stay in the queue, so `run` "
        "consumes nothing and leaves. dead-letter: they become dead letters (`not-allowed`), to be replayed later.",
    )
    rules_file: Annotated[RulesFile, NoDecode, read_by(RulesFile.read)] = Field(
        default=RulesFile(),
        description="TOML file with more texts, codes and statuses that mean transient, throttle or auth.",
    )

    storm_ratio: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of dead letters among the latest decisions above which the worker pauses and asks a person; "
        "1 switches that off.",
    )
    storm_window: int = Field(
        default=200,
        ge=20,
        le=1_000_000,
        description="How many of the latest decisions STORM_RATIO looks at; 20 or more.",
    )

    # rest
    journal_url: Annotated[str, AfterValidator(notation.journal_url)] = Field(
        default="sqlite:///order-worker.db",
        repr=False,
        description="Where applied versions, history and the index of dead letters are kept: sqlite:///FILE, "
        "postgresql://user:password@host/database for replicas, or memory (one process life).",
    )
    journal_retention_days: int = Field(
        default=90, ge=1, le=36_500, description="How long the journal keeps what is over, in days."
    )
    admin_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address where the admin interface listens; one that others can reach needs ADMIN_TOKEN.",
    )
    admin_port: int = Field(default=8080, ge=0, le=65_535, description="Port of the admin interface; 0: none.")
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        description="Bearer token that pause, resume and state ask for; a secret.",
    )
    console_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address where `order-worker console` listens; one that others can reach needs CONSOLE_TOKENS_FILE "
        "or CONSOLE_PROXY_HEADER.",
    )
    console_port: int = Field(default=8085, ge=1, le=65_535, description="Port of the console.")
    console_url: Annotated[str, AfterValidator(notation.console_url)] = Field(
        default="",
        description="Address that people type to reach the console through a proxy, such as https://console.example; "
        "with https its cookie is sent over TLS only. Empty: the address it listens on.",
    )
    console_tokens_file: str = Field(
        default="",
        description="File with a line for each person who may log in to the console: name, viewer or operator, hash of "
        "the token; `order-worker console --new-token NAME` makes one. Read again when it changes.",
    )
    console_proxy_header: Annotated[str, AfterValidator(notation.header_name)] = Field(
        default="",
        description="Header in which a reverse proxy names the person who logged in there, such as X-Forwarded-User; "
        "believed only from CONSOLE_PROXY_FROM.",
    )
    console_proxy_from: Annotated[
        tuple[str, ...], NoDecode, read_by(notation.items), AfterValidator(notation.networks)
    ] = Field(
        default=(),
        description="Addresses and networks of that proxy, such as 127.0.0.1,10.0.0.0/8, separated by commas.",
    )
    console_operators: Annotated[tuple[str, ...], NoDecode, read_by(notation.items)] = Field(
        default=(),
        description="Names in CONSOLE_PROXY_HEADER that may change things, separated by commas; all others only look.",
    )
    console_workers: Annotated[tuple[WebUrl, ...], NoDecode, read_by(notation.items)] = Field(
        default=("http://127.0.0.1:8080",),
        description="Admin interfaces of the workers that the console shows, separated by commas; a name with several "
        "addresses, such as a headless Service, is several workers. It sends them ADMIN_TOKEN.",
    )
    console_files: str = Field(
        default="order-worker-console",
        min_length=1,
        description="Directory for what is exported, discarded and edited in the console; made when it is needed.",
    )
    payloads: Annotated[Payloads, Choice] = Field(
        default=Payloads.OPERATOR,
        description="Who sees bodies and headers of messages in the console: nobody, operator or everybody.",
    )
    tracing: Annotated[TracingMode, Choice] = Field(
        default=TracingMode.OFF,
        description="otlp: traces go to an OpenTelemetry collector, as the standard variables OTEL_* say "
        "(OTEL_EXPORTER_OTLP_ENDPOINT, ...); needs the extra `otel`. off: none.",
    )
    event_loop: Annotated[EventLoop, Choice] = Field(
        default=EventLoop.AUTO,
        description="auto: uvloop where it is installed (extra `uvloop`), else asyncio. uvloop, asyncio: that one.",
    )
    log_format: Annotated[LogFormat, Choice] = Field(
        default=LogFormat.JSON, description="json: one object per line. console: lines for people."
    )
    log_level: Annotated[LogLevel, Choice] = Field(default=LogLevel.INFO, description="debug, info, warning or error.")
    secrets_dir: Annotated[str, AfterValidator(existing_directory)] = Field(
        default="",
        description="Directory of files named like the variables; /run/secrets if it exists and none is named.",
    )
