"""What the settings boil down to: small values that adapters, pipeline and core take instead of all of ``Settings``.

Names, units and bounds are those of the settings, which ``config.py`` describes and checks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.core.allowed import Allowed
from worker.core.budget import calls_per_hour


class TopologyMode(StrEnum):
    """What ``run`` does about exchanges and queues: declare them, or only check that they are as needed."""

    DECLARE = "declare"
    PASSIVE = "passive"


class DeliveryLane(StrEnum):
    """How deliveries come: cut out of the byte stream where the AMQP library is one that we know, or its own way."""

    AUTO = "auto"
    ORDINARY = "ordinary"


class HashExchange(StrEnum):
    """Exchange types that spread messages over queues by a hash of the routing key: built into RabbitMQ from 4.3 on
    (before that in the plugin rabbitmq_sharding), or in the plugin rabbitmq_consistent_hash_exchange."""

    MODULUS = "x-modulus-hash"
    CONSISTENT = "x-consistent-hash"


class Others(StrEnum):
    """What becomes of events of orders that ``ALLOW_ORDERS`` does not name: they wait, so nothing may be consumed at
    all, or they become dead letters."""

    WAIT = "wait"
    DEAD_LETTER = "dead-letter"


class TracingMode(StrEnum):
    """Where spans go: nowhere, or to an OpenTelemetry collector."""

    OFF = "off"
    OTLP = "otlp"


class EventLoop(StrEnum):
    """What the worker runs on: uvloop where it is installed, or one of the two by name."""

    AUTO = "auto"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class LogFormat(StrEnum):
    """One JSON object per line, or lines for people."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least important level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(slots=True, frozen=True, kw_only=True)
class BrokerSettings:
    """Where the broker is, and what its objects are called. ``hash_exchange`` is set where there are ``partitions``."""

    urls: tuple[str, ...] = field(repr=False)
    exchange: str
    queue: str
    dead_letter_queue: str
    retry_delays_s: tuple[float, ...]
    prefetch: int
    topology: TopologyMode
    delivery_limit: int
    heartbeat_s: int
    partitions: int
    hash_exchange: HashExchange | None
    worker_index: int | None
    workers: int
    delivery_lane: DeliveryLane

    @property
    def fast_lane(self) -> bool:
        """Whether deliveries may be cut out of the byte stream."""
        return self.delivery_lane is DeliveryLane.AUTO


@dataclass(slots=True, frozen=True, kw_only=True)
class PlatformSettings:
    """Where the platform is, and who we are there."""

    oauth_url: str
    client_id: str
    client_secret: str = field(repr=False)
    oauth_scope: str
    graphql_url: str
    call_timeout_s: float


@dataclass(slots=True, frozen=True, kw_only=True)
class BatchSettings:
    """How updates are gathered, and how long each thing may take."""

    max_batch: int
    max_batch_bytes: int
    linger_s: float
    max_in_flight: int
    rate_per_hour: int | None
    rate_per_day: int | None
    max_attempts: int
    call_timeout_s: float
    hold_limit_s: float
    max_unsettled_s: float
    drain_grace_s: float

    @property
    def calls_per_hour(self) -> int | None:
        """The budget of calls, whichever setting it comes from; None without one."""
        return calls_per_hour(self.rate_per_hour, self.rate_per_day)


@dataclass(slots=True, frozen=True, kw_only=True)
class EventSettings:
    """What an event may hold, which statuses are special, and which orders may be sent (None: all). Terminal statuses
    are milestones as well."""

    max_clock_skew_s: float
    extra_fields: Mapping[str, str]
    ignore_fields: frozenset[str]
    milestone_statuses: frozenset[int]
    terminal_statuses: frozenset[int]
    allowed: Allowed


@dataclass(slots=True, frozen=True, kw_only=True)
class StormSettings:
    """How many dead letters are too many: more than ``storm_ratio`` of the last ``storm_window`` decisions."""

    storm_ratio: float
    storm_window: int


@dataclass(slots=True, frozen=True, kw_only=True)
class AdminSettings:
    """Where the admin interface listens (port 0: nowhere), and the token it asks for (empty: none)."""

    admin_host: str
    admin_port: int
    admin_token: str = field(repr=False)


class Payloads(StrEnum):
    """Who sees bodies and headers of messages in the console: nobody, operators, or everybody who may log in."""

    NOBODY = "nobody"
    OPERATOR = "operator"
    EVERYBODY = "everybody"


@dataclass(slots=True, frozen=True, kw_only=True)
class ConsoleSettings:
    """Where the console listens and who may use it. ``url`` is what people type, empty: the address it listens on.
    ``proxy_from`` are addresses and networks whose ``proxy_header`` is believed. ``workers`` are admin interfaces."""

    console_host: str
    console_port: int
    console_url: str
    console_tokens_file: str
    console_proxy_header: str
    console_proxy_from: tuple[str, ...]
    console_operators: tuple[str, ...]
    console_workers: tuple[str, ...]
    console_files: str
    payloads: Payloads


@dataclass(slots=True, frozen=True, kw_only=True)
class LogSettings:
    """How logs look. ``secrets`` are texts that must not appear in them, wherever they come from."""

    format: LogFormat
    level: LogLevel
    secrets: tuple[str, ...] = field(default=(), repr=False)
