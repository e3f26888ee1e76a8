"""Who may use the console: people with a token each, in a file that only the console and its owner read.

    # name  role      hash of the token
    kim     operator  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

The file holds hashes, so whoever reads it cannot log in with it. One round of SHA-256 is enough: tokens are 256 random
bits that we make, not words that people choose.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from worker.core.errors import UsageError

log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[^\s#:\x00-\x1f\x7f]{1,64}")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MARK: Final = "owc_"


class Role(StrEnum):
    """What somebody may do: look, or change things as well."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(slots=True, frozen=True, kw_only=True)
class Person:
    """``proof`` is the hash of the token, empty where somebody else vouches for the person."""

    name: str
    role: Role
    proof: str = ""

    @property
    def operates(self) -> bool:
        """May change things."""
        return self.role is Role.OPERATOR


def new_token(name: str, role: Role) -> tuple[str, str]:
    """A token to hand over, and the line for the file. Raises UsageError for a name that no line can hold."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} cannot be a name here: no blanks, no # and no :, at most 64 characters")
    token = _MARK + secrets.token_urlsafe(32)
    return token, f"{name} {role.value} {_proof(token)}"


def parse_people(text: str) -> Mapping[str, Person]:
    """The people of a file, by name. Raises UsageError, which names every line that is wrong, but not what is in it."""
    people: dict[str, Person] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        person = _person(words)
        if person is None:
            problems.append(f"line {number} is not: name, viewer or operator, sha256:<64 hexadecimal digits>")
        elif person.name in people:
            problems.append(f"line {number}: {person.name} is there twice")
        else:
            people[person.name] = person
    if problems:
        raise UsageError("; ".join(problems))
    return people


def _person(words: list[str]) -> Person | None:
    if len(words) != 3:
        return None
    name, role, proof = words
    known = role in set(Role) and _NAME.fullmatch(name) and _HASH.fullmatch(proof)
    return Person(name=name, role=Role(role), proof=proof) if known else None


def _proof(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class People:
    """The file as it is now. It is read again when it changes; a version that cannot be read changes nothing, so that a
    slip of the editor locks nobody out, and is logged."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where the file cannot be used at the start."""
        self._path = path
        self._stamp = self._look()
        self._people = self._read()

    def named(self, name: str) -> Person | None:
        """The person of this name, None for nobody (any more)."""
        self._refresh()
        return self._people.get(name)

    def holder_of(self, token: str) -> Person | None:
        """Whose token this is. Takes as long for a wrong one as for a right one."""
        self._refresh()
        proof, found = _proof(token), None
        for person in self._people.values():
            if hmac.compare_digest(person.proof, proof):
                found = person
        return found

    def _refresh(self) -> None:
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._people = self._read()
        except UsageError as error:
            log.error("console.people_unreadable", detail=str(error))

    def _look(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise UsageError(f"ORDER_WORKER_CONSOLE_TOKENS_FILE: {self._path}: {error.strerror}") from None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Mapping[str, Person]:
        try:
            people = parse_people(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise UsageError(f"ORDER_WORKER_CONSOLE_TOKENS_FILE: {self._path}: {why}") from None
        except UsageError as error:
            raise UsageError(f"ORDER_WORKER_CONSOLE_TOKENS_FILE: {error}") from None
        return people
