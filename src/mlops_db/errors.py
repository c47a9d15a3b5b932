"""The errors that users see: one line with the fault, and a hint with the remedy.

Every error that a user can cause or fix is an `MlopsDbError`. `mlops-db` prints it through `exit_code_of`, `alembic`
through its own failure line; a Python caller catches the class. Any other error is a defect.

A class exists only if code catches it, or if a caller can act on it. Everything else that is refused is
a `RefusedError`.

Errors travel between processes. Their carriers (pickle, copy, process pools, Celery) create them again by calling the
class with `args`. So `_kept_in_args` keeps the constructor's arguments in `args`, in every class.
"""

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from mlops_db.terminal import print_line, report_lost_output, survive_lost_output

_Constructor = TypeVar("_Constructor", bound=Callable[..., None])


def _kept_in_args(constructor: _Constructor) -> _Constructor:
    """Make a constructor keep its arguments in `args`, without passwords.

    All its parameters must be positional.
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def keeping(*args: Any, **kwargs: Any) -> None:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        for name, value in call.arguments.items():
            if isinstance(value, str) and name != "hint":
                call.arguments[name] = _without_password(value)
        error, *given = call.args
        constructor(error, *given, **call.kwargs)
        if not call.kwargs:  # with `**kwargs`, the constructor that got them has kept them
            error.args = tuple(given)

    return cast("_Constructor", keeping)


def _without_password(text: str) -> str:
    """Remove what may be a password from the URLs of a text."""
    return re.sub(r"(postgres[\w+]*://)\S+|(?<=://)\S*@", r"\1...", text)


class MlopsDbError(Exception):
    """An error in one line, with a hint in one line.

    Attributes:
        message: what happened, in one line; `str()` returns it, too.
        hint: what to do, in one line; from Python 3.11 on a traceback shows it below the message.
        exit_code: the exit code of a command that ends with this error.
        retryable: whether the same call may succeed a little later, without doing anything twice.
    """

    exit_code: int = 1
    retryable: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make each subclass's own constructor keep its arguments."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _kept_in_args(cls.__init__)  # type: ignore[method-assign]

    @_kept_in_args
    def __init__(self, message: str, hint: str) -> None:
        """Take the two lines that the user reads."""
        self.message: str = _without_password(printable(message))
        self.hint: str = printable(hint)
        if sys.version_info >= (3, 11):
            self.add_note(f"hint: {self.hint}")

    def __str__(self) -> str:
        """The message alone."""
        return self.message


def printable(text: str) -> str:
    """The text with control characters escaped: it may hold names, which others choose."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def alembic(arguments: str) -> str:
    """How to type a command of Alembic's here: `alembic` alone needs an alembic.ini."""
    # Path.exists() raises in a folder that this user cannot enter.
    finds_one = os.environ.get("ALEMBIC_CONFIG") or os.path.exists("alembic.ini")  # noqa: PTH110
    return f"{'' if finds_one else 'mlops-db '}alembic {arguments}"


class SettingsError(MlopsDbError):
    """An environment variable, or `.env`, has a value that cannot be used; the message names it."""


class UsageError(SettingsError):
    """The command line is wrong."""

    exit_code = 64  # sysexits.h: EX_USAGE; argparse's own 2 means here that the server cannot be reached


class MissingExtraError(MlopsDbError):
    """An optional package is needed and not installed."""


@contextmanager
def require_extra(extra: str, message: str, *, otherwise: str = "") -> Iterator[None]:
    """Import an optional package in the block.

    Args:
        extra: the extra of this package that installs it.
        message: what needs it.
        otherwise: another way, as the end of the hint.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise MissingExtraError(message, hint=f"Run `pip install 'mlops-db[{extra}]'`{otherwise}.") from None


class EmbeddedServerError(MlopsDbError):
    """The pip-installed server does not start."""

    exit_code = 2


class ConnectionFailedError(MlopsDbError):
    """There is no connection to the database; a subclass has the reason if it is known."""

    exit_code = 2
    retryable = True  # a server that starts, or has too many clients, accepts connections in a moment


class ServerUnreachableError(ConnectionFailedError):
    """No server answers at that address."""


class NoAnswerError(ServerUnreachableError):
    """A server did not answer in time: it may be frozen, even if it accepts connections."""


class WorkerUnreachableError(ConnectionFailedError):
    """A worker of a distributed database does not answer, and the call needs rows of it; nothing was stored.

    Calls about models whose rows are on other workers go on.
    """


class TooManyConnectionsError(ConnectionFailedError):
    """The server, the database or the role has as many connections as its limit allows."""


class AuthenticationFailedError(ConnectionFailedError):
    """The server does not accept the role or its password."""

    retryable = False


class DatabaseMissingError(ConnectionFailedError):
    """The server has no database of that name."""

    exit_code = 1
    retryable = False


class NotPermittedError(MlopsDbError):
    """The role lacks a privilege that the command needs."""


class UnknownRevisionError(MlopsDbError):
    """`alembic_version` names a revision that this checkout does not have."""

    def __init__(self, revision: str, target: str, beside: Sequence[str] = ()) -> None:
        """Take the revision, where it was found, and the revisions that were found beside it."""
        at = f"revision {' and '.join(beside)}, and beside it at {revision!r}" if beside else f"revision {revision!r}"
        row = revision.replace("'", "''")
        remedies = [
            "Either a newer checkout migrated it: update this one.",
            "Or another tool (Airflow, MLflow) owns it: set MLOPS_DB_NAME to a database of its own.",
        ]
        if not revision.isdigit():
            remedies.append(
                "Or it is of a project of yours (docs/own-tables.md): a branch beside ours records it with "
                "`alembic stamp --purge heads`."
            )
        if beside:
            remedies.append(f"If none is true: DELETE FROM public.alembic_version WHERE version_num = '{row}';")
        super().__init__(
            f"{target} is at {at}, which this checkout does not have; nothing was changed",
            hint=" ".join(remedies),
        )


class OutdatedCodeError(UnknownRevisionError):
    """The database is at a newer revision, and the revisions since then say that this code fails there."""

    def __init__(self, at: Sequence[str], works_from: Sequence[str], known: Sequence[str], target: str) -> None:
        """Take the revisions of the database, those that code must know, the heads of this code, and the database."""
        first, here = " and ".join(works_from), " and ".join(known)
        MlopsDbError.__init__(
            self,
            f"{target} is at revision {' and '.join(at)}, which works with code of revision {first} and later, and "
            f"this code is of revision {here}; nothing was changed",
            hint=f"Update this code to a version that has revision {first}.",
        )


class RecordedRevisionError(MlopsDbError):
    """No run leaves `alembic_version` so: its rows overlap, or it has no row while objects of revisions remain."""


class UnmanagedDatabaseError(MlopsDbError):
    """The tables are there, but no revision is recorded: the database was made by hand."""

    def __init__(self, tables: Sequence[str], target: str) -> None:
        """Take the tables that are there and where they were found."""
        super().__init__(
            f"{target} has {', '.join(tables)}, but no revision in alembic_version: it was made by hand; "
            "nothing was changed",
            hint="Run `mlops-db adopt --dry-run`: it compares them with the specification's, and without --dry-run "
            "takes them under Alembic.",
        )


class LostRecordError(UnmanagedDatabaseError):
    """The tables are there, but no revision is recorded, although runs made them: the record was lost."""

    def __init__(self, tables: Sequence[str], target: str, at: str, instead: str = "") -> None:
        """Take the tables, where they are, where runs have left them, and what to do if that is not so any more."""
        MlopsDbError.__init__(
            self,
            f"{target} has {', '.join(tables)}, but no revision in alembic_version any more, where runs have recorded "
            "some; nothing was changed",
            hint=f"If it is at revision {at}, run `{alembic(f'stamp {at}')}`; then `mlops-db check` shows whether it "
            f"is.{instead}",
        )


class WorkerNodeError(MlopsDbError):
    """The database is a worker of a Citus cluster: a node other than the coordinator, which clients connect to."""

    def __init__(self, target: str, coordinator: str | None) -> None:
        """Take what the connection reached, and host and port of the coordinator, if they are known."""
        server = "the coordinator, which this node does not know"
        if coordinator is not None:
            host, _, port = coordinator.rpartition(":")
            server = f"the coordinator: POSTGRES_HOST={host} POSTGRES_PORT={port}"
        super().__init__(
            f"{target} is a worker of a Citus cluster, and the tables are on its coordinator; nothing was changed",
            hint=f"Connect to {server}.",
        )


class BehindHeadError(MlopsDbError):
    """The command needs a database at head."""

    def __init__(self, current: str | None, target: str) -> None:
        """Take the revision that the database is at, None before the first one."""
        at = f"is at revision {current}, not at head" if current else "has no tables yet"
        super().__init__(f"{target} {at}", hint=f"Run `{alembic('upgrade head')}`.")


class PoolerError(MlopsDbError):
    """The connection goes through a pooler, which a migration run cannot use."""

    def __init__(self) -> None:
        """Take nothing: the message is always the same."""
        super().__init__(
            "the connection goes through a pooler such as PgBouncer, which may run each transaction on another server "
            "process: the run lock and the timeouts would be lost; nothing was changed",
            hint="Set POSTGRES_HOST and POSTGRES_PORT to the PostgreSQL server itself for migrations.",
        )


class DataLossError(MlopsDbError):
    """A downgrade in production loses rows, or may lose them."""

    def __init__(
        self,
        message: str,
        hint: str = "Add -x backup=FOLDER to save what would be lost in a file first, or -x allow-data-loss=true to "
        "lose it.",
    ) -> None:
        """Take what would be lost."""
        super().__init__(message, hint=hint)


class InterruptedRunError(MlopsDbError):
    """Control-C ended a command of Alembic's."""

    exit_code = 130

    def __init__(self) -> None:
        """Take nothing: the message is always the same."""
        super().__init__(
            "interrupted; the revision that ran is rolled back, those before it are done",
            hint=f"Run the same command to resume; `{alembic('current')}` shows the revision that the database is at.",
        )


class StatementFailedError(MlopsDbError):
    """The server refused a statement, or the connection broke while it ran."""


class RefusedError(MlopsDbError):
    """A command, a revision or a function of the database refused; the message has the reason."""


class StatementTimeoutError(StatementFailedError):
    """A statement of a job took longer than statement_timeout, or was cancelled; nothing was stored."""


class ContentionError(StatementFailedError):
    """Other sessions were in the way of a job's statement: a lock timeout, a deadlock, a serialization failure."""

    retryable = True


class StandbyError(StatementFailedError):
    """The server is a standby, which takes no writes: another one is the primary, or will be.

    Connections that are open by then are not used again, so a repeated call opens a new connection.
    """

    retryable = True


class ConnectionLostError(ConnectionFailedError):
    """The connection broke during a call: the server restarted, or somebody ended the session.

    Attributes:
        committed: False if nothing of the call was stored. None if the connection broke during the commit: then only
            the database knows, and repeating a call that is not idempotent may store it twice.
    """

    def __init__(self, message: str, hint: str, committed: bool | None) -> None:  # noqa: FBT001  (Celery gives it so)
        """Take the two lines, and whether the work may be stored."""
        super().__init__(message, hint=hint)
        self.committed: bool | None = committed
        self.retryable = committed is False


class PoolExhaustedError(MlopsDbError):
    """Every connection of the pool is in use, and none came back in time."""

    retryable = True


class ManagerClosedError(MlopsDbError):
    """A DatabaseManager is used after its close()."""


class InvalidValueError(MlopsDbError):
    """An argument has a value that cannot be stored or asked for; the message names it.

    Attributes:
        key: the argument, or the path of a part of it, such as `gates.minimum_coverage.passed`.
        reason: why it is refused, without the key.
    """

    def __init__(self, key: str, reason: str, hint: str) -> None:
        """Take the argument, the reason, and the hint."""
        super().__init__(f"{key}: {reason}", hint=hint)
        self.key: str = key
        self.reason: str = reason


class UnknownModelVersionError(MlopsDbError):
    """No model version is registered for an MLflow run."""


class RegistrationConflictError(MlopsDbError):
    """An MLflow run is already registered with another value.

    Attributes:
        key: the argument that differs.
    """

    def __init__(self, message: str, hint: str, key: str) -> None:
        """Take the two lines, and the argument that differs."""
        super().__init__(message, hint=hint)
        self.key: str = key


class TransitionError(MlopsDbError):
    """A model version cannot change from its stage to the wanted one."""


class DecisionConflictError(MlopsDbError):
    """Another decision about the same candidate at the same moment is already recorded."""


class UnknownSeriesError(MlopsDbError):
    """There is no such metric series."""


class SeriesNotEmptyError(MlopsDbError):
    """A metric series has rows, and forgetting it would delete them."""


class WaitCallbackError(MlopsDbError):
    """psycopg2 has a wait callback, such as psycogreen's for gevent, and cannot COPY with one."""

    def __init__(self) -> None:
        """Take nothing: the message is always the same."""
        super().__init__(
            "psycopg2 has a wait callback in this process, with which it cannot COPY; nothing was stored or read",
            hint="Use a process without it (psycopg2.extensions.set_wait_callback); or log() row by row, and read with "
            "history() or history_frame(metadata=True).",
        )


class InvalidMetricError(InvalidValueError):
    """One of several metrics has a value that cannot be stored; the message names its row and the key.

    Attributes:
        row: which of the rows it is; the first one is 0.
        key: as above; empty if it is the whole row.
    """

    def __init__(self, row: int, key: str, reason: str, hint: str) -> None:
        """Take the row, the argument, the reason, and the hint."""
        MlopsDbError.__init__(self, f"row {row}: {key}: {reason}" if key else f"row {row}: {reason}", hint)
        self.key: str = key
        self.reason = reason
        self.row: int = row


class AdapterError(MlopsDbError):
    """The data of another tool cannot be stored, or the tool itself refused."""


class MlflowUnavailableError(AdapterError):
    """MLflow does not answer now: it cannot be reached, is overloaded, or failed."""

    retryable = True


class RunNotFoundError(AdapterError):
    """MLflow has no run of that id, or the run is deleted."""

    def __init__(self, run_id: str, uri: str, outcome: str) -> None:
        """Take the run's id, where MLflow looked for it, and what is stored so far."""
        super().__init__(
            f"MLflow at {uri} has no active run {run_id!r}; {outcome}",
            hint="Set MLFLOW_TRACKING_URI to the server that the run was logged to. Without it, MLflow makes a store "
            "of its own in the working directory.",
        )


def exit_code_of(command: Callable[[], int]) -> int:
    """Run `command`; returns its exit code, and prints an `MlopsDbError` on standard error.

    Control-C ends with 130, as shells expect of SIGINT. Output that cannot be written does not stop the command: its
    work is done to the end. If that was standard output, the exit code is not 0, unless its reader went away.
    """
    survive_lost_output()
    try:
        code = command()
    except SystemExit as ended:  # argparse's, after --help
        code = ended.code if isinstance(ended.code, int) else 0
    except MlopsDbError as error:
        print_line(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    return report_lost_output(code)
