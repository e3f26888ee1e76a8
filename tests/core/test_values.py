"""Values that came together are values like any others."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from worker.core.journal import merged
from worker.core.model import AckReason, Fields, Scalar, Version
from worker.core.values import Stamped, Values, together
from worker.core.versions import standing_of

NAMES = ("status", "shipping_carrier", "shipping_method")

versions = st.builds(Version, st.integers(0, 3), st.integers(-1, 1), st.integers(0, 1), st.sampled_from(["", "a"]))
scalars: st.SearchStrategy[Scalar] = st.none() | st.integers(0, 2) | st.sampled_from(["x", "y"])
some_fields = st.dictionaries(st.sampled_from(NAMES), scalars, min_size=1)
stamped = st.builds(Stamped, versions, some_fields)
plain_values = st.dictionaries(st.sampled_from(NAMES), st.tuples(versions, scalars))


def plain(values: Values) -> dict[str, tuple[Version, Scalar]]:
    """The same as a dict."""
    return {name: values[name] for name in values}


@given(stamped, st.sampled_from((*NAMES, "other")))
def test_they_are_a_mapping(values: Stamped, name: str) -> None:
    """Whatever is asked of them, a dict would answer the same."""
    expected = plain(values)

    assert isinstance(values, Mapping)
    assert (values == expected, expected == values, len(values)) == (True, True, len(expected))
    assert (name in values, values.get(name)) == (name in expected, expected.get(name))
    assert (list(values.items()), list(values.values())) == (list(expected.items()), list(expected.values()))
    assert {**values} == expected
    assert together(expected) == values


@given(st.one_of(stamped, plain_values), st.one_of(stamped, plain_values))
def test_they_merge_as_dicts_do(known: Values, applied: Values) -> None:
    """Per field the greater version; of equal ones the known one stays."""
    assert plain(merged(known, applied)) == plain(merged(plain(known), plain(applied)))


@given(stamped, some_fields, versions)
def test_who_stands_before_them_stands_before_the_same_dict(known: Stamped, fields: Fields, version: Version) -> None:
    """For the same reason, too."""
    reason: AckReason | None = standing_of(fields, version, known)

    assert reason == standing_of(fields, version, plain(known))


@given(plain_values)
def test_only_one_version_for_all_is_together(values: Values) -> None:
    """Nothing at all is not."""
    found = together(values)

    assert (found is not None) == (len({version for version, _ in values.values()}) == 1)
    assert found is None or found == values
