"""The client of MLflow, and its errors in this package's words."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlops_db.errors import AdapterError, MissingExtraError, RunNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

# What MLflow's servers and stores say of a run that is not there; some find fault with its id instead.
_NO_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@contextmanager
def telling(client: MlflowClient, run_id: str, outcome: str) -> Iterator[None]:
    """Tell what MLflow raises in this package's words.

    Args:
        client: the client that is asked.
        run_id: the run that the call is about.
        outcome: what became of the database meanwhile.

    Raises:
        RunNotFoundError: MLflow has no such run.
        AdapterError: MLflow failed otherwise.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)

    try:
        yield
    except MlflowException as error:
        if error.error_code in _NO_RUN:
            raise RunNotFoundError(run_id, named_in(client)) from None
        # Without the cause: its text can hold the URI with its password, and goes on for lines.
        raise AdapterError(
            f"MLflow at {named_in(client)} failed: {_public(str(error).partition(chr(10))[0])[:300]}; {outcome}",
            hint="Once MLflow answers, the same call is safe to repeat.",
        ) from None


def named_in(client: MlflowClient) -> str:
    """Where MLflow is, without a password."""
    return _public(str(client.tracking_uri))


def _public(text: str) -> str:
    """The text without the user and the password of a URI in it."""
    return re.sub(r"://[^/\s]*@", "://", text)


def made_client() -> MlflowClient:
    """The client that MLFLOW_TRACKING_URI directs.

    Raises:
        MissingExtraError: MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient  # noqa: PLC0415  (optional, and seconds to import)
    except ModuleNotFoundError:
        raise MissingExtraError(
            "MLflow is not installed, which its runs need", hint="pip install 'mlops-db[mlflow]'"
        ) from None
    return MlflowClient()
