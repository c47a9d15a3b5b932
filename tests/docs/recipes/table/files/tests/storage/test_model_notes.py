import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import InvalidValueError


def test_a_note_is_stored_and_read(db: DatabaseManager) -> None:
    first = db.notes.add("Trained on data of a holiday.", model_name="fraud")
    second = db.notes.add("Retrain it in January.", model_name="fraud")
    db.notes.add("Another model.", model_name="churn")

    assert db.notes.latest(model_name="fraud") == [second, first]
    assert db.notes.latest(model_name="fraud", limit=1) == [second]
    assert first.note == "Trained on data of a holiday."


def test_a_note_that_is_no_text_is_refused(db: DatabaseManager) -> None:
    with pytest.raises(InvalidValueError, match="note: 1 is not text"):
        db.notes.add(1)  # type: ignore[arg-type]
