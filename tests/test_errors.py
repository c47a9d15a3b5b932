"""Errors travel: whatever carries them to another process, they arrive as they were raised."""

import copy
import inspect
import json
import multiprocessing
import pickle
import pkgutil
import subprocess
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlops_db
from mlops_db.errors import (
    BehindHeadError,
    ConnectionLostError,
    InvalidMetricError,
    InvalidValueError,
    MlopsDbError,
    PoolExhaustedError,
)
from support.process import SECRET
from support.raising import raise_

pytestmark = pytest.mark.one_postgresql

SHOWS_NOTES = sys.version_info >= (3, 11)


class HandingOnError(MlopsDbError):
    """A program's own, which adds nothing to the constructor."""

    def __init__(self, *args: str, **kwargs: str) -> None:
        super().__init__(*args, **kwargs)
        self.seen = True


def every_class() -> list[type[MlopsDbError]]:
    for module in pkgutil.walk_packages(mlops_db.__path__, "mlops_db."):
        # The dashboards define no error, and what they are written with needs Python 3.11.
        if not module.name.endswith("__main__") and not module.name.startswith("mlops_db.reporting.dashboards."):
            import_module(module.name)

    def with_subclasses(cls: type[MlopsDbError]) -> Iterator[type[MlopsDbError]]:
        yield cls
        for subclass in cls.__subclasses__():
            yield from with_subclasses(subclass)

    return sorted(set(with_subclasses(MlopsDbError)) - {HandingOnError}, key=lambda cls: cls.__name__)


CLASSES = every_class()
WORDS = st.text(max_size=20) | st.sampled_from(["NUL \0, \x1b[31m, \ud800", "two\nlines, 'quoted'"])
URLS = st.sampled_from([f"postgresql://mlops:{SECRET}@db/mlops\nand more", f"https://me:{SECRET}@mlflow, it's down"])
ARGUMENTS = {str: WORDS | URLS, Sequence[str]: st.lists(WORDS, max_size=3)}


def made(cls: type[MlopsDbError], data: st.DataObject) -> MlopsDbError:
    """An error of the class, made by keyword, as our own code does, of whatever its constructor takes."""
    types = typing.get_type_hints(cls.__init__)
    arguments = {
        name: data.draw(WORDS if name == "hint" else ARGUMENTS.get(types[name], st.from_type(types[name])))
        for name in inspect.signature(cls).parameters
    }
    return cls(**arguments)


def state(error: BaseException) -> dict[str, object]:
    values = {name: getattr(error, name) for name in ("exit_code", "retryable", "hint", "message")}
    return {"class": type(error), "str": str(error), "args": error.args, **vars(error), **values}


def by_celery(error: MlopsDbError) -> MlopsDbError:
    """As Celery's result backend does that writes JSON: celery/backends/base.py, prepare_exception and back."""
    written = json.dumps({"type": type(error).__name__, "module": type(error).__module__, "args": error.args})
    read = json.loads(written)
    again: MlopsDbError = getattr(sys.modules[read["module"]], read["type"])(*read["args"])
    return again


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=4)
def test_an_error_arrives_as_it_was(cls: type[MlopsDbError], data: st.DataObject) -> None:
    error = made(cls, data)
    expected = state(error)
    assert SECRET not in f"{error!r}{error}"

    assert state(by_celery(error)) == expected
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert state(pickle.loads(pickle.dumps(error, protocol))) == expected  # noqa: S301  (it is our own)
    assert state(copy.copy(error)) == expected
    assert state(copy.deepcopy(error)) == expected


def test_what_was_added_to_an_error_travels_with_it() -> None:
    error = ConnectionLostError("lost", committed=None, hint="Look.")
    if SHOWS_NOTES:
        error.add_note("in the task of 10:00")
    error.task = "drift"  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  (the same)
    assert vars(again) == vars(error)
    assert vars(again)["task"] == "drift"


def test_a_subclass_that_hands_on_its_arguments_travels_too() -> None:
    error = pickle.loads(pickle.dumps(HandingOnError("no such feature", hint="Name another.")))  # noqa: S301
    assert (str(error), error.hint, error.seen) == ("no such feature", "Name another.", True)


@given(WORDS | URLS, WORDS)
def test_an_error_can_be_raised_again_with_the_values_of_another(message: str, hint: str) -> None:
    error = MlopsDbError(message, hint=hint)
    again = MlopsDbError(str(error), hint=error.hint)
    assert (str(again), again.hint) == (str(error), error.hint)


def test_an_error_takes_its_arguments_in_the_order_in_which_it_keeps_them() -> None:
    assert InvalidMetricError(3, "metric_value", "is NaN", "Leave it out.").args == (
        InvalidMetricError(3, "metric_value", reason="is NaN", hint="Leave it out.").args
    )
    assert BehindHeadError(None, "database x").args == (None, "database x")


def test_a_wrong_call_of_the_constructor_is_pythons_error() -> None:
    with pytest.raises(TypeError, match="hint"):
        MlopsDbError("what")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="hnt"):
        InvalidValueError("key", "reason", hint="?", hnt="?")  # type: ignore[call-arg]


def by_pool(errors: list[MlopsDbError], method: str) -> Iterator[BaseException]:
    with multiprocessing.get_context(method).Pool(1) as pool:
        for error in errors:
            yield arrived(lambda error=error: pool.apply_async(raise_, (error,)).get(60))


def by_executor(errors: list[MlopsDbError], method: str) -> Iterator[BaseException]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        for error in errors:
            yield arrived(lambda error=error: pool.submit(raise_, error).result(60))


def arrived(call: Callable[[], object]) -> BaseException:
    with pytest.raises(MlopsDbError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("way", [by_pool, by_executor])
@given(data=st.data())
@settings(max_examples=1)
def test_an_error_comes_out_of_a_pool_of_processes(
    way: Callable[[list[MlopsDbError], str], Iterator[BaseException]], method: str, data: st.DataObject
) -> None:
    errors = [made(cls, data) for cls in CLASSES]
    assert [state(error) for error in way(errors, method)] == [state(error) for error in errors]


def test_a_traceback_shows_the_hint_once() -> None:
    error = pickle.loads(pickle.dumps(PoolExhaustedError("all are in use", hint="Raise it.")))  # noqa: S301
    shown = "".join(traceback.format_exception(error))
    assert "PoolExhaustedError: all are in use" in shown
    assert shown.count("hint: Raise it.") == SHOWS_NOTES


def test_it_can_be_imported_from_the_top_without_a_database_library() -> None:
    code = "import sys; from mlops_db import MlopsDbError; print({'sqlalchemy', 'psycopg2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert mlops_db.MlopsDbError is MlopsDbError
