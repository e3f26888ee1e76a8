"""Property values that other clients send and ours would not."""

from datetime import UTC, datetime
from typing import Self

MICROSECONDS = 1_795_255_200_000_000


class Latin1(str):
    """A text that goes out as ISO 8859-1."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding
        return super().encode("latin-1", errors)


class InMicroseconds(datetime):
    """A time that goes out as microseconds, where AMQP means seconds."""

    @classmethod
    def make(cls) -> Self:
        return cls(2026, 11, 21, 10, tzinfo=UTC)

    def timestamp(self) -> float:
        return super().timestamp() * 1e6
