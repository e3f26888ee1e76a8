"""Files that settings come from: the directory of secret files, and files that a setting names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource

from worker.core.rulesfile import NO_RULES, ExtraRules, parse_rules

SECRETS_DIR = Path("/run/secrets")  # where Docker and Podman mount secrets


@dataclass(slots=True, frozen=True)
class RulesFile:
    """The rules of ``RULES_FILE``, read and checked when the settings are loaded."""

    path: str = ""
    rules: ExtraRules = field(default_factory=lambda: NO_RULES, repr=False)

    @classmethod
    def read(cls, path: str) -> Self:
        """Read the file at ``path``; ValueError says what is wrong with it. An empty path means no file."""
        if not path:
            return cls()
        try:
            return cls(path, parse_rules(Path(path).read_text(encoding="utf-8")))
        except OSError as missing:
            raise ValueError(f"the file cannot be read: {missing.strerror}") from None


def existing_directory(path: str) -> str:
    """Empty, or a directory that is there."""
    if path and not Path(path).is_dir():
        raise ValueError("there is no such directory; create it, or leave the variable out")
    return path


def secret_files(settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource) -> SecretsSettingsSource:
    """The source of secret files; the directory is itself a setting, looked for in ``sources``."""
    named = next((found for source in sources if (found := source().get("secrets_dir"))), None)
    directory = Path(named) if named else SECRETS_DIR
    # A directory that was named and is missing is reported by the field itself.
    return SecretsSettingsSource(settings_cls, secrets_dir=directory if directory.is_dir() else None)
