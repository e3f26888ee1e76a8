"""Settings: where they come from, what is refused, and that nothing of them leaks."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker import settingfiles
from worker.config import PREFIX, Settings, variable
from worker.core.errors import UsageError
from worker.core.settings import LogFormat, LogLevel, TopologyMode
from worker.loading import load_settings
from worker.settingsview import origins, settings_table, unknown_variables, written


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, no .env and no secret of the machine that runs the tests."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(settingfiles, "SECRETS_DIR", tmp_path / "no-such-directory")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> "Environment":
    """Sets variables by their short names."""
    return Environment(monkeypatch)


class Environment:
    """Variables of this test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def load(self, **values: str) -> Settings:
        """The settings with these variables set."""
        for name, value in values.items():
            self._monkeypatch.setenv(variable(name), value)
        return load_settings()

    def refusal(self, **values: str) -> list[str]:
        """The problems that loading lists, one per line."""
        with pytest.raises(UsageError) as refused:
            self.load(**values)
        return str(refused.value).splitlines()


def test_defaults_are_those_of_the_interface() -> None:
    """Names and defaults are a contract with those who deploy."""
    defaults = {row.variable.removeprefix(PREFIX): row.default for row in settings_table()}

    assert defaults == {
        "AMQP_URL": "amqp://guest:***@localhost:5672/",
        "EXCHANGE": "order-updates",
        "QUEUE": "order-updates.work",
        "DEAD_LETTER_QUEUE": "order-updates.dead",
        "RETRY_DELAYS_S": "5,30,120,600",
        "PREFETCH": "2000",
        "TOPOLOGY": "declare",
        "DELIVERY_LIMIT": "100",
        "HEARTBEAT_S": "10",
        "DELIVERY_LANE": "auto",
        "MAX_ATTEMPTS": "5",
        "PARTITIONS": "1",
        "HASH_EXCHANGE": "",
        "WORKER_INDEX": "",
        "WORKERS": "1",
        "MANAGEMENT_URL": "",
        "OAUTH_URL": "https://oauth.kornitx.net/token",
        "CLIENT_ID": "",
        "CLIENT_SECRET": "",
        "OAUTH_SCOPE": "order-it.order-manager.edit",
        "GRAPHQL_URL": "https://graphql.kornitx.net",
        "CALL_TIMEOUT_S": "15",
        "RATE_PER_HOUR": "",
        "RATE_PER_DAY": "",
        "MAX_BATCH": "100",
        "MAX_BATCH_BYTES": "1048576",
        "LINGER_S": "0.02",
        "MAX_IN_FLIGHT": "4",
        "HOLD_LIMIT_S": "300",
        "MAX_UNSETTLED_S": "900",
        "DRAIN_GRACE_S": "25",
        "MAX_CLOCK_SKEW_S": "300",
        "EXTRA_FIELDS": "",
        "IGNORE_FIELDS": "",
        "MILESTONE_STATUSES": "",
        "TERMINAL_STATUSES": "64,128,516",
        "ALLOW_ORDERS": "",
        "OTHERS": "wait",
        "RULES_FILE": "",
        "STORM_RATIO": "0.5",
        "STORM_WINDOW": "200",
        "JOURNAL_URL": "sqlite:///order-worker.db",
        "JOURNAL_RETENTION_DAYS": "90",
        "ADMIN_HOST": "127.0.0.1",
        "ADMIN_PORT": "8080",
        "ADMIN_TOKEN": "",
        "CONSOLE_HOST": "127.0.0.1",
        "CONSOLE_PORT": "8085",
        "CONSOLE_URL": "",
        "CONSOLE_TOKENS_FILE": "",
        "CONSOLE_PROXY_HEADER": "",
        "CONSOLE_PROXY_FROM": "",
        "CONSOLE_OPERATORS": "",
        "CONSOLE_WORKERS": "http://127.0.0.1:8080",
        "CONSOLE_FILES": "order-worker-console",
        "PAYLOADS": "operator",
        "TRACING": "off",
        "EVENT_LOOP": "auto",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
        "SECRETS_DIR": "",
    }


def test_every_setting_is_described() -> None:
    """The description is the documentation."""
    assert [row.variable for row in settings_table() if not row.description.endswith((".", ")"))] == []


def test_values_are_read_as_they_are_written(environment: Environment) -> None:
    """Lists are separated by commas, names are compared without case, blanks do not matter."""
    settings = environment.load(
        amqp_url="amqp://a/, amqps://b:5671/v", retry_delays_s="0.5, 2", topology="PASSIVE", log_level="Debug",
        extra_fields="shipping_tracking, weight:number", ignore_fields="note", milestone_statuses="4,8",
        terminal_statuses="128", log_format="console", oauth_scope="",
    )  # fmt: skip

    assert settings.broker.urls == ("amqp://a/", "amqps://b:5671/v")
    assert settings.broker.retry_delays_s == (0.5, 2.0)
    assert settings.broker.topology is TopologyMode.PASSIVE
    assert (settings.logs.format, settings.logs.level) == (LogFormat.CONSOLE, LogLevel.DEBUG)
    assert settings.event.extra_fields == {"shipping_tracking": "string", "weight": "number"}
    assert settings.event.ignore_fields == {"note"}
    assert settings.event.terminal_statuses == {128}
    assert settings.event.milestone_statuses == {4, 8, 128}
    assert settings.oauth_scope == ""


def test_what_config_prints_can_be_read_again(environment: Environment) -> None:
    """The written form of a value is the form it is given in."""
    given = {"extra_fields": "shipping_tracking:string,weight:number", "retry_delays_s": "0.25,30", "linger_s": "0.5"}

    settings = environment.load(**given)

    assert {name: written(getattr(settings, name)) for name in given} == given


HASHED = {"partitions": "4", "hash_exchange": "x-modulus-hash"}


@pytest.mark.parametrize(
    ("values", "named", "hint"),
    [
        ({"prefetch": "x"}, ["PREFETCH"], "valid integer"),
        ({"prefetch": ""}, ["PREFETCH"], "valid integer"),
        ({"prefetch": "0"}, ["PREFETCH"], "greater than or equal to 1"),
        ({"prefetch": "2001"}, ["PREFETCH"], "less than or equal to 2000"),
        ({"prefetch": "399"}, ["PREFETCH", "MAX_BATCH", "MAX_IN_FLIGHT"], "raise the prefetch"),
        ({"max_batch": "0"}, ["MAX_BATCH"], "greater"),
        ({"max_batch_bytes": "65535"}, ["MAX_BATCH_BYTES"], "65536"),
        ({"max_in_flight": "-1"}, ["MAX_IN_FLIGHT"], "greater"),
        ({"max_attempts": "0"}, ["MAX_ATTEMPTS"], "greater"),
        ({"delivery_limit": "-1"}, ["DELIVERY_LIMIT"], "greater"),
        ({"heartbeat_s": "4"}, ["HEARTBEAT_S"], "5"),
        ({"call_timeout_s": "25"}, ["CALL_TIMEOUT_S", "DRAIN_GRACE_S"], "longer than the call timeout"),
        ({"call_timeout_s": "nan"}, ["CALL_TIMEOUT_S"], "finite"),
        ({"hold_limit_s": "885"}, ["HOLD_LIMIT_S", "CALL_TIMEOUT_S", "MAX_UNSETTLED_S"], "lower the first two"),
        ({"max_unsettled_s": "1800"}, ["MAX_UNSETTLED_S"], "less than 1800"),
        ({"linger_s": "15"}, ["LINGER_S", "CALL_TIMEOUT_S"], "lower the linger"),
        ({"linger_s": "-1"}, ["LINGER_S"], "greater"),
        ({"retry_delays_s": ""}, ["RETRY_DELAYS_S"], "at least one"),
        ({"retry_delays_s": "30,5"}, ["RETRY_DELAYS_S"], "longer than the one before"),
        ({"retry_delays_s": "0,5"}, ["RETRY_DELAYS_S"], "greater than 0"),
        ({"retry_delays_s": "5,x"}, ["RETRY_DELAYS_S"], "valid number"),
        ({"amqp_url": ""}, ["AMQP_URL"], "at least one address"),
        ({"amqp_url": "amqp://a,http://b"}, ["AMQP_URL"], "address 2 of 2 must be amqp:// or amqps://"),
        ({"amqp_url": "amqp://a:port/"}, ["AMQP_URL"], "percent-encoded"),
        ({"graphql_url": "ftp://host"}, ["GRAPHQL_URL"], "http:// or https://"),
        ({"graphql_url": "https://"}, ["GRAPHQL_URL"], "followed by a host"),
        ({"oauth_url": "https://me:secret@host"}, ["OAUTH_URL"], "must not hold credentials"),
        ({"exchange": ""}, ["EXCHANGE"], "1 to 215 bytes"),
        ({"queue": "amq.work"}, ["QUEUE"], "must not start with amq."),
        ({"partitions": "0"}, ["PARTITIONS"], "greater than or equal to 1"),
        ({"partitions": "65"}, ["PARTITIONS"], "less than or equal to 64"),
        ({"partitions": "2"}, ["PARTITIONS", "HASH_EXCHANGE"], "x-modulus-hash"),
        ({"hash_exchange": "fanout"}, ["HASH_EXCHANGE"], "x-consistent-hash"),
        ({**HASHED, "journal_url": "memory"}, ["PARTITIONS", "JOURNAL_URL"], "PostgreSQL"),
        (
            {**HASHED, "partitions": "5", "prefetch": "4", "max_batch": "1"},
            ["PARTITIONS", "PREFETCH"],
            "cannot be divided",
        ),
        ({"workers": "3"}, ["WORKERS", "WORKER_INDEX"], "has no number"),
        ({"worker_index": "-1"}, ["WORKER_INDEX"], "greater than or equal to 0"),
        ({"queue": "order-updates"}, ["EXCHANGE", "QUEUE", "DEAD_LETTER_QUEUE"], "three different names"),
        ({"topology": "maybe"}, ["TOPOLOGY"], "'declare' or 'passive'"),
        ({"log_level": "loud"}, ["LOG_LEVEL"], "'debug', 'info', 'warning' or 'error'"),
        ({"log_format": "xml"}, ["LOG_FORMAT"], "'json' or 'console'"),
        ({"terminal_statuses": "64,x"}, ["TERMINAL_STATUSES"], "valid integer"),
        ({"milestone_statuses": "-4"}, ["MILESTONE_STATUSES"], "greater"),
        ({"extra_fields": "status"}, ["EXTRA_FIELDS"], "'status' is sent anyway"),
        ({"extra_fields": "9lives"}, ["EXTRA_FIELDS"], "not a GraphQL field name"),
        ({"extra_fields": "weight:kilo"}, ["EXTRA_FIELDS"], "use one of"),
        ({"extra_fields": "a,a:number"}, ["EXTRA_FIELDS"], "named twice"),
        ({"ignore_fields": "id"}, ["IGNORE_FIELDS"], "cannot be ignored"),
        ({"extra_fields": "a", "ignore_fields": "a"}, ["EXTRA_FIELDS", "IGNORE_FIELDS"], "both sent and ignored"),
        ({"journal_url": "sqlite://"}, ["JOURNAL_URL"], "name a file"),
        ({"journal_url": "sqlite:///x.db?mode=ro"}, ["JOURNAL_URL"], "name a file"),
        ({"journal_url": "mysql://root:hunter22@host/db"}, ["JOURNAL_URL"], "use memory, sqlite:///FILE or"),
        ({"journal_retention_days": "0"}, ["JOURNAL_RETENTION_DAYS"], "greater"),
        ({"rules_file": "missing.toml"}, ["RULES_FILE"], "cannot be read"),
        ({"secrets_dir": "missing"}, ["SECRETS_DIR"], "no such directory"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    environment: Environment, values: Mapping[str, str], named: list[str], hint: str
) -> None:
    """One problem, one line: the variables, what is wrong, what to change."""
    [line] = environment.refusal(**values)

    assert line.partition(":")[0].split(", ") == [PREFIX + name for name in named]
    assert hint in line


def test_all_problems_come_at_once(environment: Environment) -> None:
    """Wrong values and conflicts are listed together, without conflicts that follow from a wrong value."""
    lines = environment.refusal(prefetch="many", max_batch="1000", log_level="loud", drain_grace_s="15")

    assert [line.partition(":")[0] for line in lines] == [
        "ORDER_WORKER_PREFETCH",
        "ORDER_WORKER_LOG_LEVEL",
        "ORDER_WORKER_CALL_TIMEOUT_S, ORDER_WORKER_DRAIN_GRACE_S",
    ]


def test_environment_outranks_dotenv_which_outranks_secret_files(environment: Environment, tmp_path: Path) -> None:
    """The nearest source wins, and ``origins`` says which one that was."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("order_worker_client_id", "ORDER_WORKER_CLIENT_SECRET", "order_worker_queue"):
        (secrets / name).write_text("from-file\n")
    Path(".env").write_text("ORDER_WORKER_CLIENT_ID=from-dotenv\nORDER_WORKER_QUEUE=from-dotenv\nOTHER=1\n")

    settings = environment.load(secrets_dir=str(secrets), queue="from-environment")

    assert settings.require_platform().client_secret == "from-file"
    assert (settings.client_id, settings.queue) == ("from-dotenv", "from-environment")
    assert origins() == {
        "client_secret": "secret file",
        "client_id": ".env",
        "queue": "environment",
        "secrets_dir": "environment",
    }


def test_the_usual_directory_of_secrets_is_read_if_it_exists(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Container engines mount secrets there; nothing has to be set."""
    (tmp_path / "order_worker_client_id").write_text("mounted")
    monkeypatch.setattr(settingfiles, "SECRETS_DIR", tmp_path)

    assert environment.load().client_id == "mounted"


def test_a_secret_that_is_no_file_is_a_problem(environment: Environment, tmp_path: Path) -> None:
    """pydantic-settings only warns of it, and the secret would be missing."""
    (tmp_path / "order_worker_client_secret").mkdir()

    [line] = environment.refusal(secrets_dir=str(tmp_path))

    assert line.startswith("ORDER_WORKER_SECRETS_DIR: ")


def test_an_unreadable_dotenv_is_a_problem(environment: Environment) -> None:
    """A broken file is reported, not thrown at the user."""
    Path(".env").write_bytes(b"ORDER_WORKER_QUEUE=\xff\xfe")

    assert "cannot be read" in environment.refusal()[0]


def test_credentials_are_needed_only_for_the_platform(environment: Environment) -> None:
    """Commands that talk to the broker alone work without them."""
    settings = environment.load(client_id="me")

    with pytest.raises(UsageError, match=r"^ORDER_WORKER_CLIENT_SECRET: is not set"):
        settings.require_platform()


def test_secrets_are_in_no_representation(environment: Environment) -> None:
    """repr and str of settings and of the values made from them."""
    settings = environment.load(client_id="me", client_secret="hunter2", amqp_url="amqp://u:hunter2@host/")

    texts = [
        repr(settings),
        str(settings),
        repr(settings.broker),
        repr(settings.require_platform()),
        repr(settings.logs),
    ]

    assert "hunter2" not in " ".join(texts)
    assert settings.logs.secrets == ("hunter2",)


@pytest.mark.parametrize(
    "name", ["amqp_url", "management_url", "oauth_url", "graphql_url", "rules_file", "journal_url", "prefetch"]
)
def test_refusals_do_not_repeat_passwords(environment: Environment, name: str) -> None:
    """An address in the wrong place, or one that cannot be read, is not echoed with its password."""
    lines = environment.refusal(**{name: "amqp://u:hun/ter2@host:port,http://x:hun/ter2@y"}, client_secret="hun/ter2")

    assert "ter2" not in "\n".join(lines)


def test_the_management_address_may_hold_a_password_and_hides_it(environment: Environment) -> None:
    """Like that of the broker."""
    settings = environment.load(management_url="https://u:hunter2@host:15672/")

    assert "hunter2" not in repr(settings)
    assert "hunter2" in settings.logs.secrets
    assert written(settings.management_url) == "https://u:***@host:15672/"


def test_percent_encoded_passwords_are_hidden_in_both_forms(environment: Environment) -> None:
    """Libraries print either form."""
    settings = environment.load(amqp_url="amqp://u:p%40ssword@host/")

    assert settings.logs.secrets == ("p%40ssword", "p@ssword")


def test_unknown_variables_are_found_everywhere_with_a_suggestion(environment: Environment, tmp_path: Path) -> None:
    """A typing error does not stop the program, and does not go unnoticed."""
    (tmp_path / "order_worker_client_sekret").write_text("x")
    Path(".env").write_text("ORDER_WORKER_COLOUR=red\nPATH_OF_OTHERS=1\n")

    environment.load(prefech="1", secrets_dir=str(tmp_path))

    assert [(each.name, each.suggestion) for each in unknown_variables()] == [
        ("ORDER_WORKER_CLIENT_SEKRET", "ORDER_WORKER_CLIENT_SECRET"),
        ("ORDER_WORKER_COLOUR", None),
        ("ORDER_WORKER_PREFECH", "ORDER_WORKER_PREFETCH"),
    ]
    assert "did you mean ORDER_WORKER_PREFETCH?" in str(unknown_variables()[2])


def test_rules_file_is_read_and_completed(environment: Environment) -> None:
    """Texts are compared in lower case and codes as text; every key is there."""
    Path("rules.toml").write_text(
        '[transient]\ntexts = ["Deadlock Found"]\ncodes = ["LOCK", 8014]\n[throttle]\nstatuses = [420]\n'
    )

    assert environment.load(rules_file="rules.toml").rules == {
        "transient": {"texts": ("deadlock found",), "codes": ("LOCK", "8014")},
        "throttle": {"statuses": (420,), "texts": (), "codes": ()},
        "auth": {"texts": (), "codes": ()},
    }


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[transient", "not TOML"),
        ("[transcient]", "unknown section [transcient]"),
        ("[auth]\nstatuses = [401]", "unknown key statuses in [auth]"),
        ("auth = 1", "auth must be a section"),
        ('[auth]\ntexts = [""]', "texts in [auth] must be a list of texts that are not blank"),
        ("[auth]\ntexts = 'x'", "must be a list"),
        ("[auth]\ncodes = [true]", "codes in [auth] must be a list"),
        ("[throttle]\nstatuses = [200]", "HTTP statuses from 400 to 599"),
    ],
)
def test_a_wrong_rules_file_is_refused(environment: Environment, text: str, hint: str) -> None:
    """A rule that nobody reads, or one that would match every reply, is a listed problem."""
    Path("rules.toml").write_text(text)

    [line] = environment.refusal(rules_file="rules.toml")

    assert line.startswith("ORDER_WORKER_RULES_FILE: ")
    assert hint in line


def test_settings_given_by_code_are_checked_as_well() -> None:
    """Tests and tools that make settings themselves get the same rules."""
    with pytest.raises(ValueError, match="ORDER_WORKER_PREFETCH"):
        Settings(prefetch=10)

    assert Settings(prefetch=400, client_secret=SecretStr("x")).batch.max_batch == 100


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "worker.example.org"])  # noqa: S104 - refused
def test_an_admin_address_that_others_reach_needs_a_token(environment: Environment, host: str) -> None:
    """Whoever reached it could stop the worker; without a port there is nothing to reach."""
    [line] = environment.refusal(admin_host=host)
    assert line.startswith("ORDER_WORKER_ADMIN_HOST, ORDER_WORKER_ADMIN_TOKEN: ")

    assert environment.load(admin_token="long-enough").admin.admin_token == "long-enough"
    assert environment.load(admin_token="", admin_port="0").admin.admin_port == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_loopback_needs_no_admin_token(environment: Environment, host: str) -> None:
    """Only this machine reaches it."""
    assert environment.load(admin_host=host).admin.admin_host == host


def test_the_admin_token_is_a_secret(environment: Environment) -> None:
    """It is hidden in logs and in every representation."""
    settings = environment.load(admin_token="t0ken-of-the-admin")

    assert "t0ken-of-the-admin" in settings.logs.secrets
    assert "t0ken-of-the-admin" not in f"{settings!r} {settings.admin!r} {written(settings.admin_token)}"


@pytest.mark.parametrize(
    ("name", "value"), [("storm_ratio", "0"), ("storm_ratio", "1.1"), ("storm_window", "19"), ("admin_port", "65536")]
)
def test_storm_and_port_have_bounds(environment: Environment, name: str, value: str) -> None:
    """Values that could not mean anything."""
    [line] = environment.refusal(**{name: value})

    assert line.startswith(variable(name))
