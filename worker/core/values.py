"""What is applied of an order: by field the version that was applied, and the value."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING

from msgspec import Struct

from worker.core.model import Fields, Scalar, Version

Stamp = tuple[Version, Scalar]
"""A version, and the value that it gave a field."""
Values = Mapping[str, Stamp]
"""By field. Nobody changes them: they are shared."""

if TYPE_CHECKING:

    class _Stamped(Mapping[str, Stamp]):
        """For type checkers: a struct cannot have a base class of another kind."""

        version: Version
        fields: Fields

        def __init__(self, version: Version, fields: Fields) -> None: ...
else:

    class _Stamped(Struct, eq=False, gc=False):
        version: Version
        fields: Fields


class Stamped(_Stamped):
    """Values that came together, as what a single event applied: one version for all of its fields.

    Nearly all values are such ones. One of these costs a tenth of a dict with a tuple for each field.
    """

    def __getitem__(self, name: str) -> Stamp:
        return self.version, self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment] # as for any mapping

    def get(self, name: str, default: Stamp | None = None) -> Stamp | None:  # type: ignore[override]
        """As of any mapping."""
        return (self.version, self.fields[name]) if name in self.fields else default

    def keys(self) -> KeysView[str]:
        """As of any mapping."""
        return self.fields.keys()

    def items(self) -> ItemsView[str, Stamp]:
        """As of any mapping."""
        return {name: (self.version, value) for name, value in self.fields.items()}.items()

    def values(self) -> ValuesView[Stamp]:
        """As of any mapping."""
        return {name: (self.version, value) for name, value in self.fields.items()}.values()


Mapping.register(Stamped)


def together(values: Values) -> Stamped | None:
    """The same as one that came together, if all of its fields have one version."""
    if isinstance(values, Stamped):
        return values
    versions = [version for version, _ in values.values()]
    if versions and versions.count(versions[0]) == len(versions):
        return Stamped(versions[0], {name: value for name, (_, value) in values.items()})
    return None
