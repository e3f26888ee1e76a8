"""Settings: read once at start from environment, ``.env`` and secret files, checked, and handed on as value objects.

An environment variable outranks ``.env``, which outranks a secret file. Every setting is described once, in
``settingfields.py``: the command ``config``, ``--help`` and the README table read the descriptions from
``settings_table()``. Problems come all at once, each naming its variables. Secrets and passwords never appear in a repr
or in an error.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.core.conflicts import Conflict, conflicts
from worker.core.errors import UsageError
from worker.core.rulesfile import ExtraRules
from worker.core.settings import (
    AdminSettings,
    BatchSettings,
    BrokerSettings,
    ConsoleSettings,
    EventSettings,
    LogSettings,
    Others,
    PlatformSettings,
    StormSettings,
)
from worker.settingfields import SettingFields
from worker.settingfiles import secret_files

PREFIX = "ORDER_WORKER_"
# Never repeated in an error; addresses are shown without password.
HIDDEN = frozenset({"client_secret", "amqp_url", "management_url", "admin_token", "journal_url"})


class Settings(SettingFields):
    """All settings, valid on their own and together. Code that needs some of them takes a value object instead."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    @property
    def broker(self) -> BrokerSettings:
        """For the adapters of the broker."""
        return BrokerSettings(urls=self.amqp_url, **self._select(BrokerSettings))

    @property
    def batch(self) -> BatchSettings:
        """For the pipeline."""
        return BatchSettings(**self._select(BatchSettings))

    @property
    def event(self) -> EventSettings:
        """For decoding, merging and judging."""
        terminal = frozenset(self.terminal_statuses)
        return EventSettings(
            max_clock_skew_s=self.max_clock_skew_s,
            extra_fields=self.extra_fields,
            ignore_fields=frozenset(self.ignore_fields),
            milestone_statuses=terminal.union(self.milestone_statuses),
            terminal_statuses=terminal,
            allowed=frozenset(self.allow_orders) or None,
        )

    @property
    def storm(self) -> StormSettings:
        """For the storm guard."""
        return StormSettings(**self._select(StormSettings))

    @property
    def admin(self) -> AdminSettings:
        """For the admin interface, and for those who call it."""
        token = self.admin_token.get_secret_value()
        return AdminSettings(admin_token=token, **self._select(AdminSettings, "admin_token"))

    @property
    def console(self) -> ConsoleSettings:
        """For the console."""
        return ConsoleSettings(**self._select(ConsoleSettings))

    @property
    def rules(self) -> ExtraRules:
        """What ``RULES_FILE`` adds to the built-in rules."""
        return self.rules_file.rules

    @property
    def logs(self) -> LogSettings:
        """For telemetry, with the texts to hide."""
        passwords = [urlsplit(url).password or "" for url in (*self.amqp_url, self.management_url, self.journal_url)]
        tokens = (self.client_secret.get_secret_value(), self.admin_token.get_secret_value())
        secrets = {*tokens, *passwords, *map(unquote, passwords)}
        # A very short secret would blank out half of every line, and "guest" is no secret.
        hidden = tuple(sorted(secret for secret in secrets if len(secret) >= 4 and secret != "guest"))  # noqa: S105
        return LogSettings(format=self.log_format, level=self.log_level, secrets=hidden)

    def missing_for_platform(self) -> list[str]:
        """Names of settings that calls to the platform need and that are not set."""
        return [name for name in ("client_id", "client_secret") if not getattr(self, name)]

    def require_platform(self) -> PlatformSettings:
        """For commands that call the platform. UsageError names the credentials that are missing."""
        if missing := self.missing_for_platform():
            raise UsageError("\n".join(f"{variable(name)}: is not set; {_HOW_TO_GET}" for name in missing))
        secret = self.client_secret.get_secret_value()
        return PlatformSettings(client_secret=secret, **self._select(PlatformSettings, "client_secret"))

    def require_consumable(self) -> None:
        """For the worker. UsageError where consuming would take what has to wait: a queue hands over the events of all
        orders, and those that wait in the worker's hands would block it."""
        if self.allow_orders and self.others is Others.WAIT:
            raise UsageError(_HOW_TO_GO_LIVE)

    def _select(self, kind: type, *without: str) -> dict[str, Any]:
        known = type(self).model_fields
        return {f.name: getattr(self, f.name) for f in fields(kind) if f.name in known and f.name not in without}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if found := conflicts(dict(self)):
            raise Conflicts(found)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The directory of secret files is itself a setting, so that source is made last."""
        secrets = secret_files(settings_cls, env_settings, dotenv_settings)
        return (init_settings, env_settings, dotenv_settings, secrets)


_HOW_TO_GET = "the platform's support hands it over with the OAuth user (put it into the environment or a secret file)"
_HOW_TO_GO_LIVE = (
    f"{PREFIX}ALLOW_ORDERS, {PREFIX}OTHERS: only some orders may be sent and the events of all others have to wait in "
    "the queue, which hands them over all the same; so nothing was consumed. Set OTHERS=dead-letter to put them into "
    "the dead-letter queue (`order-worker dead replay --reason not-allowed` brings them back), leave ALLOW_ORDERS out "
    "to send all orders, or look first: `order-worker run --dry-run`"
)


class Conflicts(ValueError):
    """Raised inside validation; carries which settings do not fit together."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(map(conflict_line, conflicts)))


def variable(name: str) -> str:
    """``max_batch`` -> ``ORDER_WORKER_MAX_BATCH``."""
    return PREFIX + name.upper()


def conflict_line(conflict: Conflict) -> str:
    """The variables that do not fit together, and why."""
    return f"{', '.join(map(variable, conflict.names))}: {conflict.text}"
