"""flopsd's dataclasses compared with those of the standard library."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    one: float
    other: str = "x"
    secret: str = dataclasses.field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Longer(Pair):
    more: int = dataclasses.field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Single:
    one: object


@dataclass(frozen=True)
class Empty:
    pass


@dataclass(slots=True)
class Changing:
    one: object
    other: object = 0


OURS: tuple[Any, ...] = (Pair, Longer, Single, Empty, Changing)


def of_the_library(ours: Any) -> Any:
    """The same class, made by the standard library."""
    members = {f.name: dataclasses.field(default=f.default, repr=f.repr, compare=f.compare, kw_only=f.kw_only)
               for f in dataclasses.fields(ours)}  # fmt: skip
    kinds = [(name, object, member) for name, member in members.items()]
    return dataclasses.make_dataclass(ours.__name__, kinds, frozen=ours is not Changing)


# No NaN: whether a NaN member equals itself depends on the Python version (not from 3.13 on).
VALUES = st.sampled_from((0, 0.0, 1, float("inf"), "x", "", None, (), (1,)))


@pytest.mark.long
@pytest.mark.parametrize("ours", OURS)
@given(data=st.data())
def test_dataclasses_compare_hash_and_repr_like_the_standard_librarys(ours: Any, data: st.DataObject) -> None:
    theirs = of_the_library(ours)
    names = [field.name for field in dataclasses.fields(ours)]
    first, second = ({name: data.draw(VALUES) for name in names} for _ in range(2))
    assert (ours(**first) == ours(**second)) is (theirs(**first) == theirs(**second))
    assert ours(**first) == ours(**first)  # NaN too: the identical member is equal
    assert repr(ours(**first)) == repr(theirs(**first))
    if ours is Changing:
        with pytest.raises(TypeError, match="unhashable"):
            hash(ours(**first))
    else:
        assert hash(ours(**first)) == hash(theirs(**first))
    assert dataclasses.asdict(ours(**first)) == dataclasses.asdict(theirs(**first))
    assert dataclasses.replace(ours(**first), **second) == ours(**second)
    assert copy.deepcopy(ours(**first)) == ours(**first)


def test_instances_of_different_classes_differ_and_compare_false_members_are_ignored() -> None:
    assert Pair(1) != Longer(1)
    assert Pair(1, secret="a") == Pair(1, secret="b")
    assert "hidden" not in repr(Pair(1, secret="hidden"))
    assert pickle.loads(pickle.dumps(Pair(1, "y", "z"))).secret == "z"
    with pytest.raises(AttributeError):
        Pair(1).unknown = 2  # type: ignore[attr-defined]
