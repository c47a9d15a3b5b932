"""What a caller's statement is given: numpy's scalars and their like are the values that they hold."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import InvalidValueError
from mlops_db.storage.parameters import convert_parameters
from support.database import Database

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

US = datetime(2026, 3, 1, 12, 30, 15, 123456)  # noqa: DTZ001  (as numpy has it)


class Tensor:
    """A scalar, as PyTorch has it."""

    dtype = "torch.float32"
    ndim = 0

    def item(self) -> float:
        return 0.5

    def __repr__(self) -> str:
        return "tensor(0.5)"


TENSOR = Tensor()


@pytest.mark.parametrize(
    ("given", "held"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.10000000149011612),
        (np.float16(0.1), 0.0999755859375),
        (np.longdouble(0.5), 0.5),
        (np.int64(2**62), 2**62),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(1), True),
        (np.str_("it's"), "it's"),
        (np.bytes_(b"\0'"), b"\0'"),
        (np.array(3), 3),
        (np.datetime64(US), US),
        (np.datetime64(US, "ns"), US),
        (np.datetime64("2026-03-01"), date(2026, 3, 1)),
        (np.timedelta64(1500, "ms"), timedelta(seconds=1.5)),
        (np.timedelta64(1500, "ns") * 2, timedelta(microseconds=3)),
        (np.ma.masked_array([1, 2])[0], 1),
        (TENSOR, 0.5),
        (pd.Series([7]).iloc[0], 7),
        (pd.Timestamp(US), US),
        (None, None),
        (Decimal("1.50"), Decimal("1.50")),
        ([np.int64(1), [np.float64(2.5)]], [1, [2.5]]),
        ((np.int64(1), "a"), (1, "a")),
        ({"a": np.int64(1), "b": [np.bool_(0)]}, {"a": 1, "b": [False]}),
    ],
    ids=repr,
)
def test_a_scalar_is_what_it_holds(given: Any, held: Any) -> None:
    (found,) = convert_parameters([given])
    assert found == held
    assert type(found) is type(held) or isinstance(given, pd.Timestamp)
    assert convert_parameters({"name": given}) == {"name": held}


@pytest.mark.parametrize(
    "nothing",
    [
        pd.NA,
        pd.NaT,
        np.ma.masked,
        np.ma.masked_array(3, mask=True),
        np.datetime64("NaT"),
        np.timedelta64("NaT"),
        np.datetime64(1, "ns"),
        np.datetime64(10**18, "s"),
        np.timedelta64(3),
        np.timedelta64(3, "M"),
        np.longdouble("1e400") if np.finfo(np.longdouble).maxexp > 1024 else pd.NA,
    ],
    ids=repr,
)
def test_what_holds_no_value_is_refused_by_name(nothing: Any) -> None:
    for params, key in (
        ((1, nothing), "params[1]"),
        ({"day": nothing}, "params.day"),
        ({"days": [1, (nothing,)]}, "params.days[1][0]"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            convert_parameters(params)
        assert caught.value.key == key


def test_what_needs_no_change_is_the_same_object() -> None:
    class Of(dict[str, int]):
        def __missing__(self, _: str) -> int:
            return 7

    for params in ((1, "a"), [1, [2]], Of(a=1)):
        assert convert_parameters(params) is params
    assert np.isnan(convert_parameters([np.float64("nan")])[0])


@pytest.mark.parametrize(
    "params",
    [
        "a",
        b"a",
        memoryview(b"a"),
        {1, 2},
        frozenset("a"),
        5,
        np.float64(5),
        np.array(5),
        np.array([[5]]),
        pd.DataFrame({"a": [5]}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_sequence_is_refused(params: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        convert_parameters(params)
    assert caught.value.key == "params"
    assert "(value,)" in str(caught.value.hint)


def test_statements_get_them(head: Database) -> None:
    with DatabaseManager(head.settings) as db:
        for none in (None, (), [], {}, iter(()), np.array([])):
            assert db.execute_query("SELECT 'ab' LIKE 'a%'", none) == [(True,)]
        for params in ([np.float64(1.5), 2], np.array([1.5, 2]), (number for number in (1.5, np.int64(2)))):
            assert db.execute_query("SELECT %s + %s", params) == [(3.5,)]
        assert db.execute_query("SELECT %(a)s, 2 = ANY(%(b)s)", {"a": np.bool_(0), "b": [np.int64(2)]}) == [
            (False, True)
        ]
        assert db.execute_query("SELECT %s::timestamptz", (np.datetime64(US, "ns"),))[0][0].replace(tzinfo=None) == US  # type: ignore[index]


def test_a_statement_that_counts_nothing_changes_nothing(head: Database) -> None:
    with DatabaseManager(head.settings) as db:
        for statement in ("CREATE TABLE a ()", "TRUNCATE a", "SET timezone = 'UTC'", "DROP TABLE a", "DO 'BEGIN END'"):
            assert db.execute_query(statement) == 0
