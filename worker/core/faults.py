"""Errors in a body of the platform, in any of the shapes that it is known or supposed to use."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True, kw_only=True)
class Fault:
    """One error of a reply, in GraphQL's shape or the REST shape of the same platform."""

    message: str
    code: str = ""
    path: tuple[str | int, ...] = ()


def faults_of(payload: Mapping[str, Any]) -> list[Fault]:
    """Errors of a body: ``errors[]`` of GraphQL, ``{"error": {"message", "code"}}`` or OAuth's ``{"error",
    "message"}``."""
    errors = payload.get("errors")
    found = [_fault(error) for error in errors] if isinstance(errors, list) else []
    error = payload.get("error")
    if isinstance(error, dict):
        found.append(_fault(error))
    elif isinstance(error, str):
        message = payload.get("message") or payload.get("error_description") or error
        found.append(Fault(message=str(message), code=error))
    return found


def _fault(error: object) -> Fault:
    if not isinstance(error, dict):
        return Fault(message=str(error)[:500])
    extensions = error.get("extensions")
    code = error.get("code") or (extensions.get("code") if isinstance(extensions, dict) else None) or ""
    path = error.get("path")
    steps = tuple(step for step in path if isinstance(step, str | int)) if isinstance(path, list) else ()
    return Fault(message=str(error.get("message", ""))[:500], code=str(code)[:100], path=steps)


def matches(fault: Fault, texts: Sequence[str], codes: Collection[str]) -> bool:
    """Whether an error has one of these codes, or one of these texts (lower case) in its message."""
    return fault.code in codes or contains(fault.message, texts)


def contains(message: str, texts: Sequence[str]) -> bool:
    """Whether one of these texts (lower case) is anywhere in the message, in whatever case."""
    message = message.lower()
    return any(text in message for text in texts)
