"""Reads the settings once, at start, and says everything that is wrong with them at once."""

import warnings
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from worker.config import HIDDEN, PREFIX, Settings, conflict_line, variable
from worker.core.errors import UsageError
from worker.core.excerpt import excerpt
from worker.core.masking import mask_text


def load_settings() -> Settings:
    """Read and check everything. UsageError lists every problem, one per line, and shows no secret."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            settings = Settings()
        except ValidationError as refused:
            raise UsageError("\n".join(_problems(refused))) from None
        except (OSError, UnicodeError, SettingsError) as unreadable:
            raise UsageError(f".env or a secret file cannot be read: {mask_text(str(unreadable))}") from None
    # pydantic-settings only warns about a secret file that it cannot use, and goes on without the secret.
    if caught:
        raise UsageError("\n".join(f"{PREFIX}SECRETS_DIR: {warning.message}" for warning in caught))
    return settings


def _problems(refused: ValidationError) -> list[str]:
    """Problems of single settings, and those conflicts that are not a consequence of them."""
    errors = [error for error in refused.errors() if error["loc"]]
    broken = {str(error["loc"][0]) for error in errors}
    defaults: dict[str, Any] = {name: Settings.model_fields[name].default for name in broken}
    lines = [_line(error) for error in errors]
    try:
        Settings(**defaults)
    except ValidationError as conflicting:
        found = [conflict for error in conflicting.errors() for conflict in error["ctx"]["error"].conflicts]
        lines += [conflict_line(conflict) for conflict in found if not broken.intersection(conflict.names)]
    return lines


def _line(error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    text = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    shown = name not in HIDDEN and error["type"] != "value_error" and isinstance(given, str | int | float)
    return f"{variable(name)}: {text[0].lower()}{text[1:]}" + (
        f" (it is {excerpt(str(given), limit=40)!r})" if shown else ""
    )
