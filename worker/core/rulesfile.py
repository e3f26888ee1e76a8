"""Rules of judgement that operations people add: which texts, codes and statuses of the platform mean what.

The file is TOML; every key may be left out. It extends the built-in rules and takes none away::

    [transient]                       # try again later
    texts = ["deadlock found"]        # looked for anywhere in an error text, in any case
    codes = ["LOCK_TIMEOUT", 8014]    # compared as text
    [throttle]                        # we are too fast
    statuses = [420]                  # HTTP, 400 to 599
    [auth]                            # token, permission or address not accepted
    texts = ["ip not allowed"]
"""

import tomllib
from collections.abc import Mapping
from typing import Any

from worker.core.verdict import Rules

ExtraRules = Mapping[str, Mapping[str, tuple[str | int, ...]]]

KEYS: Mapping[str, tuple[str, ...]] = {
    "transient": ("texts", "codes"),
    "throttle": ("statuses", "texts", "codes"),
    "auth": ("texts", "codes"),
}
NO_RULES: ExtraRules = {section: dict.fromkeys(keys, ()) for section, keys in KEYS.items()}


def parse_rules(text: str) -> ExtraRules:
    """Read the TOML; every section and key is present in the result. ValueError lists everything that is wrong."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as broken:
        raise ValueError(f"not TOML: {broken}") from None
    if problems := [*_unknown(given), *_wrong_items(given)]:
        raise ValueError("; ".join(problems))
    return {
        section: {key: tuple(_item(key, item) for item in given.get(section, {}).get(key, [])) for key in keys}
        for section, keys in KEYS.items()
    }


def _unknown(given: Mapping[str, Any]) -> list[str]:
    problems = [f"unknown section [{name}], use {', '.join(KEYS)}" for name in given if name not in KEYS]
    for section, keys in KEYS.items():
        values = given.get(section, {})
        if not isinstance(values, dict):
            problems.append(f"{section} must be a section, [{section}]")
            continue
        problems += [f"unknown key {name} in [{section}], use {', '.join(keys)}" for name in values if name not in keys]
    return problems


def _wrong_items(given: Mapping[str, Any]) -> list[str]:
    problems = []
    for section, keys in KEYS.items():
        values = given.get(section)
        for key in keys if isinstance(values, dict) else ():
            listed = values.get(key, []) if isinstance(values, dict) else []
            if not isinstance(listed, list) or not all(_fits(key, item) for item in listed):
                problems.append(f"{key} in [{section}] must be a list of {_WANTED[key]}")
    return problems


# An empty text would match every error there is, a success status every reply.
_WANTED = {
    "texts": "texts that are not blank",
    "codes": "texts or whole numbers that are not blank",
    "statuses": "HTTP statuses from 400 to 599",
}


def _fits(key: str, item: object) -> bool:
    if key == "statuses":
        return isinstance(item, int) and not isinstance(item, bool) and 400 <= item <= 599
    if key == "codes" and isinstance(item, int):
        return not isinstance(item, bool)
    return isinstance(item, str) and bool(item.strip())


def _item(key: str, item: str | int) -> str | int:
    match key:
        case "texts":
            return str(item).lower()  # texts are looked for in lower-cased messages
        case "codes":
            return str(item)
        case _:
            return item


def rules_of(extra: ExtraRules, terminal_statuses: frozenset[int]) -> Rules:
    """The built-in rules of judgement, extended by those of ``RULES_FILE``."""
    own = Rules()
    texts = {section: tuple(str(text) for text in extra[section]["texts"]) for section in extra}
    codes = {section: frozenset(str(code) for code in extra[section]["codes"]) for section in extra}
    statuses = frozenset(int(status) for status in extra["throttle"]["statuses"])
    return Rules(
        throttle_statuses=own.throttle_statuses | statuses,
        throttle_texts=own.throttle_texts + texts["throttle"],
        throttle_codes=own.throttle_codes | codes["throttle"],
        transient_texts=own.transient_texts + texts["transient"],
        transient_codes=own.transient_codes | codes["transient"],
        auth_texts=own.auth_texts + texts["auth"],
        auth_codes=own.auth_codes | codes["auth"],
        terminal_statuses=terminal_statuses,
    )
