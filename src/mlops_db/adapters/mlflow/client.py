"""The client of MLflow: how it is made, what it finds, and its errors in this package's words."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import OperationalError

from mlops_db.errors import (
    AdapterError,
    InvalidValueError,
    MissingExtraError,
    MlflowUnavailableError,
    MlopsDbError,
    RunNotFoundError,
)
from mlops_db.storage.arguments import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTHING_STORED = "nothing was stored"
# What the database has as a run may be anything; only such ids are MLflow's, and can stand in a search.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# What servers and stores say of a run that is not there; some find fault with its id instead.
_NO_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_PASSING = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_WHO = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
_WHERE = (
    "Are MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI those of an MLflow server, and HTTP_PROXY and HTTPS_PROXY, if "
    "set, that of a proxy?"
)
_HINTS = {
    "UNAUTHENTICATED": _WHO,
    "CUSTOMER_UNAUTHORIZED": _WHO,
    "PERMISSION_DENIED": "Its administrator can permit this user to edit the experiment and the registered model.",
    "ENDPOINT_NOT_FOUND": _WHERE,
    "INTERNAL_ERROR": _WHERE,  # what MLflow's client says, too, of an answer that is none of an MLflow server
}


def checked_client(client: MlflowClient | None) -> MlflowClient:
    """The client that was given; for None, the one that MLFLOW_TRACKING_URI directs.

    Raises:
        InvalidValueError: it is no client.
        MissingExtraError: MLflow is not installed.
        AdapterError: MLflow cannot make one.
    """
    if client is not None:
        if not hasattr(client, "tracking_uri"):
            hint = "Give mlflow.MlflowClient(tracking_uri); None is the one that MLFLOW_TRACKING_URI directs."
            raise InvalidValueError("client", f"{excerpt(client)} is not an MlflowClient", hint=hint)
        return client
    try:
        from mlflow import MlflowClient, get_tracking_uri  # noqa: PLC0415  (optional, and seconds to import)
    except ModuleNotFoundError:
        raise MissingExtraError(
            "MLflow is not installed, which its runs need", hint="pip install 'mlops-db[mlflow]'"
        ) from None
    with telling(_public(get_tracking_uri()), NOTHING_STORED):
        return MlflowClient()


def tracking_of(client: MlflowClient) -> str:
    """Where the client has its runs, without a password."""
    return _public(str(client.tracking_uri))


def registry_of(client: MlflowClient) -> str:
    """Where the client has its registered models, without a password."""
    return _public(str(getattr(client, "_registry_uri", client.tracking_uri)))


def active_run(client: MlflowClient, run_id: str, outcome: str) -> Run:
    """The run.

    Args:
        client: the client that is asked.
        run_id: the run's id.
        outcome: as for `telling`.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted.
        AdapterError: MLflow failed.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)

    uri = tracking_of(client)
    with telling(uri, outcome):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in _NO_RUN:
                raise RunNotFoundError(run_id, uri, outcome) from None
            raise
    if run.info.run_id != run_id:  # JSON of something else is a run without an id to MLflow's client
        raise AdapterError(f"what answers at {uri} is not MLflow: it gave no run; {outcome}", hint=_WHERE)
    if run.info.lifecycle_stage != "active":
        raise RunNotFoundError(run_id, uri, outcome)
    return run


def every(search: Callable[..., Any], **given: Any) -> Iterator[Any]:
    """What a search of the client's finds, page by page."""
    page = search(**given)
    yield from page
    while page.token:
        page = search(**given, page_token=page.token)
        yield from page


def experiments_of(client: MlflowClient) -> list[str]:
    """The ids of all experiments, which MLflow wants to know when runs or logged models are searched."""
    from mlflow.entities import ViewType  # noqa: PLC0415  (there is a client, so it is loaded)

    return [each.experiment_id for each in every(client.search_experiments, view_type=ViewType.ALL)]


def listed(ids: Iterable[str]) -> str:
    """The ids of runs or models, as a search takes them; those that cannot be MLflow's are left out."""
    return ", ".join(f"'{each}'" for each in ids if _ID.fullmatch(each))


@contextmanager
def telling(uri: str, outcome: str, *, instead: str = "") -> Iterator[None]:
    """Tell what MLflow raises in this package's words.

    Args:
        uri: where MLflow is, without a password.
        outcome: what is stored so far.
        instead: what else can be done if MLflow refuses, for the hint.

    Raises:
        MlflowUnavailableError: MLflow does not answer, or not now.
        AdapterError: MLflow refused, or what answered is not MLflow.
    """
    try:
        yield
    except MlopsDbError:
        raise
    # MLflow's stores raise whatever their libraries do: those of HTTP, of SQL, of protocol buffers, the file system's.
    except Exception as error:  # noqa: BLE001
        said = f"MLflow at {uri} failed: {_reason(error)}; {outcome}"
        # Without the cause: its text can hold the URI with its password, and goes on for lines.
        if _passes(error):
            raise MlflowUnavailableError(said, hint="Once MLflow answers, the same call is safe to repeat.") from None
        hint = _HINTS.get(_code(error), "MLflow would refuse the same call again: mend what it names.")
        raise AdapterError(said, hint=f"{hint} {instead}".strip()) from None


def _code(error: Exception) -> str:
    from requests.exceptions import InvalidHeader  # noqa: PLC0415  (MLflow brings it along)

    if isinstance(error.__context__, InvalidHeader):  # such as a token that was read with the end of its line
        return "UNAUTHENTICATED"
    return getattr(error, "error_code", "INTERNAL_ERROR")


def _passes(error: BaseException | None) -> bool:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)
    from requests import RequestException  # noqa: PLC0415  (MLflow brings it along)
    from requests.exceptions import SSLError, TooManyRedirects  # noqa: PLC0415

    if isinstance(error, MlflowException):
        if error.error_code != "INTERNAL_ERROR":
            return error.error_code in _PASSING
        failed, what, reason = str(error).partition(" failed with ")
        if not (what and failed.startswith("API request to ")):
            return False
        if reason.startswith("error code "):  # a status that MLflow's client does not try again after
            return reason.startswith("error code 5")
        error = error.__context__
    # An address or a header that is wrong is a ValueError, too.
    refused = isinstance(error, ValueError | SSLError | TooManyRedirects)
    return isinstance(error, RequestException | OperationalError | ConnectionError | TimeoutError) and not refused


def _reason(error: Exception) -> str:
    """The line of an error that says most, short."""
    line = _public(str(error).strip().partition("\n")[0])
    # Of a request: where it went is known, and what is behind this, at the end, is why it failed.
    _, caused, reason = line.rpartition("(Caused by ")
    said = re.sub(r"""^\w+\(["']?|["')]+$""", "", reason) if caused else line
    return said[:300] if hasattr(error, "error_code") else f"{type(error).__name__}: {said[:300]}"


def _public(text: str) -> str:
    """The text without the user, the password and the parameters of a URI in it, and without the value of a header."""
    # SQLAlchemy takes a password with slashes in it, too; requests quotes a header that it cannot send.
    return re.sub(r"(?<=://)\S*@|\?\S*|(?<=in header value)\W.*", "", text)
