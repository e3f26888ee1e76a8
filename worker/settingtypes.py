"""How single settings are written and checked: what a value is as text, and what it becomes."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from worker.core import notation
from worker.core.fields import INT64_MAX


def read_by(parse: Callable[[str], object]) -> BeforeValidator:
    """Texts are parsed; values given by code pass as they are."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def none_or_lower(value: object) -> object:
    """Left empty: not set. Texts in any case."""
    return None if value == "" else value.lower() if isinstance(value, str) else value


# NoDecode: without it pydantic-settings expects JSON for everything that is not a plain value.
Choice = read_by(str.lower)
Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], NoDecode, read_by(notation.items)]
OrderIds = Annotated[tuple[Annotated[int, Field(gt=0, le=INT64_MAX)], ...], NoDecode, read_by(notation.items)]
Delay = Annotated[float, Field(gt=0, le=4_294_967)]  # RabbitMQ keeps a time-to-live as 32 bits of milliseconds
Delays = Annotated[tuple[Delay, ...], NoDecode, read_by(notation.items), AfterValidator(notation.ascending)]
Positive = Annotated[int, Field(ge=1)]
Budget = BeforeValidator(lambda value: None if value == "" else value)
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BrokerName = Annotated[str, AfterValidator(notation.broker_name)]
ManagementUrl = Annotated[str, AfterValidator(notation.management_url)]
WebUrl = Annotated[str, AfterValidator(notation.web_url)]
