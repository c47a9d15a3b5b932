"""The client of MLflow: create it, search with it, and translate its errors."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import OperationalError

from mlops_db.errors import (
    AdapterError,
    InvalidValueError,
    MlflowUnavailableError,
    MlopsDbError,
    RunNotFoundError,
    require_extra,
)
from mlops_db.storage.arguments import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTHING_STORED = "nothing was stored"
_IDS_PER_SEARCH = 500
# The database takes any text as a run. Only such ids can be MLflow's, and can be part of a search.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# The error codes for a run that does not exist. Some servers and stores complain about its id instead.
_NO_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_TEMPORARY = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_CREDENTIALS = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
_WHERE = (
    "Check that MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI are those of an MLflow server, and that HTTP_PROXY and "
    "HTTPS_PROXY, if set, are those of a proxy."
)
_HINTS = {
    "UNAUTHENTICATED": _CREDENTIALS,
    "CUSTOMER_UNAUTHORIZED": _CREDENTIALS,
    "PERMISSION_DENIED": "Ask its administrator for permission to edit the experiment and the registered model.",
    "ENDPOINT_NOT_FOUND": _WHERE,
    "INTERNAL_ERROR": _WHERE,  # also the code if the answer does not come from an MLflow server
}


class Mlflow:
    """A client of MLflow whose errors are translated, and whose searches have no pages.

    Attributes:
        client: MLflow's own client.
        tracking_uri: the URI of the runs, without a password.
        registry_uri: the URI of the registered models, without a password.
    """

    def __init__(self, client: MlflowClient | None) -> None:
        """Take the client; for None, create one for the server in MLFLOW_TRACKING_URI.

        Raises:
            InvalidValueError: `client` is no client.
            MissingExtraError: MLflow is not installed.
            AdapterError: MLflow cannot create a client.
        """
        self.client = _create_client() if client is None else client
        if not hasattr(self.client, "tracking_uri"):
            hint = "Give mlflow.MlflowClient(tracking_uri), or None for the server in MLFLOW_TRACKING_URI."
            raise InvalidValueError("client", f"{excerpt(client)} is not an MlflowClient", hint=hint)
        self.tracking_uri = _public(str(self.client.tracking_uri))
        self.registry_uri = _public(str(getattr(self.client, "_registry_uri", self.client.tracking_uri)))
        self._experiments: list[str] | None = None

    def tracking_errors(self, outcome: str) -> AbstractContextManager[None]:
        """Translate the errors of requests about runs; `outcome` says what is stored so far."""
        return _translate_errors(self.tracking_uri, outcome)

    def registry_errors(self, outcome: str, *, instead: str = "") -> AbstractContextManager[None]:
        """Translate the errors of requests about registered models.

        Args:
            outcome: what is stored so far.
            instead: another way if MLflow refuses, for the hint.
        """
        return _translate_errors(self.registry_uri, outcome, instead=instead)

    @property
    def experiments(self) -> list[str]:
        """The ids of all experiments. MLflow requires them to search runs or logged models."""
        from mlflow.entities import ViewType  # noqa: PLC0415  (there is a client, so it is loaded)

        # Not cached_property: before Python 3.12 one lock of all instances is held while it asks MLflow.
        if self._experiments is None:
            found = search_all(self.client.search_experiments, view_type=ViewType.ALL)
            self._experiments = [each.experiment_id for each in found]
        return self._experiments

    def get_run(self, run_id: str, outcome: str) -> Run:
        """Get a run that is not deleted.

        Args:
            run_id: the run's id.
            outcome: what is stored so far.

        Raises:
            RunNotFoundError: MLflow has no such run, or it is deleted.
            AdapterError: MLflow failed.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)

        with self.tracking_errors(outcome):
            try:
                run = self.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in _NO_RUN:
                    raise RunNotFoundError(run_id, self.tracking_uri, outcome) from None
                raise
        if run.info.run_id != run_id:  # MLflow's client reads any JSON as a run, without an id
            answer = f"what answers at {self.tracking_uri} is not MLflow: it gave no run; {outcome}"
            raise AdapterError(answer, hint=_WHERE)
        if run.info.lifecycle_stage != "active":
            raise RunNotFoundError(run_id, self.tracking_uri, outcome)
        return run

    def find_runs(self, run_ids: Iterable[str], *, deleted: bool = False) -> Iterator[Run]:
        """Find those of the runs that MLflow has, with `deleted` the deleted ones, too."""
        from mlflow.entities import ViewType  # noqa: PLC0415  (there is a client, so it is loaded)

        for ids in quote_ids(run_ids):
            yield from search_all(
                self.client.search_runs,
                experiment_ids=self.experiments,
                filter_string=f"attributes.run_id IN ({ids})",
                run_view_type=ViewType.ALL if deleted else ViewType.ACTIVE_ONLY,
                max_results=_IDS_PER_SEARCH,
            )


def search_all(search: Callable[..., Any], **given: Any) -> Iterator[Any]:
    """The results of a search of MLflow's client, page by page."""
    page = search(**given)
    yield from page
    while page.token:
        page = search(**given, page_token=page.token)
        yield from page


def quote_ids(ids: Iterable[str]) -> Iterator[str]:
    """The ids of runs or models for searches, some at a time. Ids that cannot be MLflow's are left out."""
    quoted = [f"'{each}'" for each in ids if _ID.fullmatch(each)]
    for start in range(0, len(quoted), _IDS_PER_SEARCH):
        yield ", ".join(quoted[start : start + _IDS_PER_SEARCH])


def _create_client() -> MlflowClient:
    with require_extra("mlflow", "MLflow is not installed"):
        from mlflow import MlflowClient, get_tracking_uri  # noqa: PLC0415  (optional, and seconds to import)
    with _translate_errors(_public(get_tracking_uri()), NOTHING_STORED):
        return MlflowClient()


@contextmanager
def _translate_errors(uri: str, outcome: str, *, instead: str = "") -> Iterator[None]:
    """Raise MLflow's errors as errors of this package.

    Raises:
        MlflowUnavailableError: MLflow does not answer, or not now.
        AdapterError: MLflow refused, or what answered is not MLflow.
    """
    try:
        yield
    except MlopsDbError:
        raise
    # MLflow's stores raise the errors of their libraries: HTTP, SQL, protocol buffers, file system.
    except Exception as error:  # noqa: BLE001
        message = f"MLflow at {uri} failed: {_reason(error)}; {outcome}"
        # Without the cause: its text can hold the URI with the password, and has many lines.
        if _is_temporary(error):
            hint = "Once MLflow answers, the same call is safe to repeat."
            raise MlflowUnavailableError(message, hint=hint) from None
        hint = _HINTS.get(_code(error), "MLflow would refuse the same call again: fix what it names.")
        raise AdapterError(message, hint=f"{hint} {instead}".strip()) from None


def _code(error: Exception) -> str:
    from requests.exceptions import InvalidHeader  # noqa: PLC0415  (MLflow brings it along)

    if isinstance(error.__context__, InvalidHeader):  # such as a token that ends with a line break
        return "UNAUTHENTICATED"
    return getattr(error, "error_code", "INTERNAL_ERROR")


def _is_temporary(error: BaseException | None) -> bool:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)
    from requests import RequestException  # noqa: PLC0415  (MLflow brings it along)
    from requests.exceptions import SSLError, TooManyRedirects  # noqa: PLC0415

    if isinstance(error, MlflowException):
        if error.error_code != "INTERNAL_ERROR":
            return error.error_code in _TEMPORARY
        failed, separator, reason = str(error).partition(" failed with ")
        if not (separator and failed.startswith("API request to ")):
            return False
        if reason.startswith("error code "):  # a status after which MLflow's client does not retry
            return reason.startswith("error code 5")
        error = error.__context__
    # requests raises ValueError, too, for a wrong address or header.
    refused = isinstance(error, ValueError | SSLError | TooManyRedirects)
    return isinstance(error, RequestException | OperationalError | ConnectionError | TimeoutError) and not refused


def _reason(error: Exception) -> str:
    """The most useful line of an error, shortened."""
    line = _public(str(error).strip().partition("\n")[0])
    # The error of a request first names the address, which is known, and then the cause.
    _, caused, reason = line.rpartition("(Caused by ")
    text = re.sub(r"""^\w+\(["']?|["')]+$""", "", reason) if caused else line
    return text[:300] if hasattr(error, "error_code") else f"{type(error).__name__}: {text[:300]}"


def _public(text: str) -> str:
    """Remove the user, the password and the parameters of a URI from the text, and the value of a header."""
    # A password can hold slashes for SQLAlchemy. requests quotes a header that it cannot send.
    return re.sub(r"(?<=://)\S*@|\?\S*|(?<=in header value)\W.*", "", text)
