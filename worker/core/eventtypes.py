"""What msgspec decodes and checks in one pass: struct types made from the settings."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from worker.core.fields import INT64_MAX, INT64_MIN, Kind

_Int64 = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
_OrderId = Annotated[int, Meta(gt=0, le=INT64_MAX)]
_Name = Annotated[str, Meta(min_length=1)]
# msgspec takes no bool and no 4.0 for an int. Bounds on numbers keep out integers that databases cannot store.
_TYPES: Final[Mapping[Kind, Any]] = {
    Kind.INTEGER: _Int64 | None | UnsetType,
    Kind.NUMBER: _Int64 | Annotated[float, Meta(ge=INT64_MIN, le=INT64_MAX)] | None | UnsetType,
    Kind.BOOLEAN: bool | None | UnsetType,
    Kind.STRING: str | None | UnsetType,
    Kind.NAME: _Name | None | UnsetType,
}


class Event(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every event may hold; the settings add the fields to change and the ones to ignore."""

    id: _OrderId
    # A string, not a datetime: msgspec rounds digits finer than microseconds, so an event could seem later than it was.
    occurred_at: str | UnsetType = UNSET
    sequence: _Int64 | UnsetType = UNSET
    event_id: Any = UNSET
    source: Any = UNSET


class Envelope(msgspec.Struct, kw_only=True):
    """A CloudEvent around an event, which comes in as ``data`` below. Unknown attributes are extensions: allowed."""

    specversion: Literal["1.0"]
    id: _Name
    source: _Name
    type: _Name
    time: str | UnsetType | None = UNSET
    datacontenttype: str | UnsetType | None = UNSET


def event_type(changes: Mapping[str, Kind], ignored: Collection[str]) -> tuple[type[Event], tuple[str, ...]]:
    """An event that may change these fields and hold those that are ignored; and its attributes for the former, in
    their order. A field that is not there is UNSET."""
    # Attributes have names of our own: a field to ignore need not be a Python identifier.
    attributes = {f"change_{number}": name for number, name in enumerate(changes)}
    kept = sorted(set(ignored) - set(Event.__struct_fields__))
    names = attributes | {f"ignored_{number}": name for number, name in enumerate(kept)}
    types = [(attribute, _TYPES[changes[name]] if name in changes else Any, UNSET) for attribute, name in names.items()]
    made = msgspec.defstruct("Event", types, bases=(Event,), rename=names, kw_only=True, forbid_unknown_fields=True)
    return cast("type[Event]", made), tuple(attributes)


def envelope_type(event: type[Event]) -> type[Envelope]:
    """A CloudEvent around such an event."""
    made = msgspec.defstruct("Envelope", [("data", event)], bases=(Envelope,), kw_only=True)
    return cast("type[Envelope]", made)
