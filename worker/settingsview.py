"""The settings as people see them: the table of all, where each comes from, and what is set but means nothing."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from worker.config import PREFIX, Settings, variable
from worker.core.masking import MASK, mask_text
from worker.settingfiles import RulesFile, secret_files


def origins() -> dict[str, str]:
    """Where each setting comes from: ``environment``, ``.env`` or ``secret file``; absent: the default."""
    environment, dotenv = EnvSettingsSource(Settings), DotEnvSettingsSource(Settings)
    files = secret_files(Settings, environment, dotenv)
    found: dict[str, str] = {}
    for label, source in (("secret file", files), (".env", dotenv), ("environment", environment)):
        found.update({name: label for name in source() if name in Settings.model_fields})
    return found


@dataclass(slots=True, frozen=True)
class UnknownVariable:
    """A variable with our prefix that no setting knows, and the setting that was perhaps meant."""

    name: str
    suggestion: str | None = None

    def __str__(self) -> str:
        return f"{self.name} is no setting" + (f"; did you mean {self.suggestion}?" if self.suggestion else "")


def unknown_variables() -> list[UnknownVariable]:
    """Variables of ours, in all three sources, that nothing reads: a typing error, or a setting of another version."""
    environment, dotenv = EnvSettingsSource(Settings), DotEnvSettingsSource(Settings)
    directory = secret_files(Settings, environment, dotenv).secrets_dir
    files = [path.name for path in Path(str(directory)).iterdir()] if directory else []
    given = {name.upper() for name in (*environment.env_vars, *dotenv.env_vars, *files)}
    ours = {name.removeprefix(PREFIX).lower() for name in given if name.startswith(PREFIX)}
    return [UnknownVariable(variable(name), _meant(name)) for name in sorted(ours.difference(Settings.model_fields))]


def _meant(name: str) -> str | None:
    # Compared without the prefix, which would make every name look like every other.
    close = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.7)
    return variable(close[0]) if close else None


@dataclass(slots=True, frozen=True, kw_only=True)
class SettingRow:
    """One line of the settings table: the attribute of ``Settings``, its variable, and what it means."""

    name: str
    variable: str
    default: str
    description: str


def settings_table() -> list[SettingRow]:
    """Every setting with its default as one would write it, in the order of this file."""
    return [
        SettingRow(
            name=name, variable=variable(name), default=written(info.default), description=info.description or ""
        )
        for name, info in Settings.model_fields.items()
    ]


def written(value: object) -> str:
    """A value as one would write it into the environment; secrets and passwords masked."""
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK if value else ""
        case RulesFile():
            return value.path
        case dict():
            return ",".join(f"{name}:{kind}" for name, kind in value.items())
        case tuple():
            return ",".join(map(written, value))
        case float():
            return f"{value:g}"
        case _:
            return mask_text(str(value))
