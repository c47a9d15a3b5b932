"""`db.notes`: what people noted about models."""

from dataclasses import dataclass
from datetime import datetime

from mlops_db.schema.limits import DEFAULT_MODEL
from mlops_db.storage.arguments import check_limit, check_name, check_text
from mlops_db.storage.transactions import Transactions, columns_of, read_records


@dataclass(frozen=True)
class Note:
    """A row of model_notes.

    Attributes:
        id: the note's number; a later note has a greater one.
        model_name: the model that it is about.
        note: the note, in words.
        noted_at: when it was noted, in UTC.
    """

    id: int
    model_name: str
    note: str
    noted_at: datetime


_INSERT = f"""
INSERT INTO public.model_notes (model_name, note) VALUES (%(model_name)s, %(note)s) RETURNING {columns_of(Note)}
"""
_LATEST = f"""
SELECT {columns_of(Note)} FROM public.model_notes WHERE model_name = %(model_name)s ORDER BY id DESC LIMIT %(limit)s
"""


class ModelNotes:
    """The notes about models, as `db.notes`. Safe to share between threads.

    Every method may also raise the errors that `DatabaseManager` lists; nothing of the call is stored then.
    """

    def __init__(self, transactions: Transactions) -> None:
        """Use the connections of `transactions`."""
        self._transactions = transactions

    def add(self, note: str, *, model_name: str = DEFAULT_MODEL) -> Note:
        """Store a note about a model.

        Args:
            note: the note, in words.
            model_name: the model that it is about, 1 to 255 characters.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which.
        """
        values = {"note": check_text(note, "note"), "model_name": check_name(model_name, "model_name")}
        return read_records(self._transactions, Note, _INSERT, values)[0]

    def latest(self, *, model_name: str = DEFAULT_MODEL, limit: int | None = 10) -> list[Note]:
        """The notes about a model, newest first.

        Args:
            model_name: the model.
            limit: how many at most; None for all.

        Raises:
            InvalidValueError: an argument cannot be used; it names which.
        """
        values = {"model_name": check_name(model_name, "model_name"), "limit": check_limit(limit)}
        return read_records(self._transactions, Note, _LATEST, values)
