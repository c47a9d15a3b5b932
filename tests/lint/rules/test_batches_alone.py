"""What stands beside `op.run_in_batches` in a function is found."""

import pytest

from support.projects import source
from support.revision_files import DOWN, UP, of_first

pytestmark = pytest.mark.one_postgresql

BATCHES = "op.run_in_batches('UPDATE t SET n = 1 WHERE id > :after AND id <= :upto', table='t', key='id')"
REMEDY = "Put it into a revision of its own; only SET may come before it."
LOCKS = "ROW EXCLUSIVE on t, for a batch."


@pytest.mark.parametrize(
    ("upgrade", "beside"),
    [
        (f"{UP}\n{BATCHES}", "op.execute"),
        (f"{BATCHES}\nop.drop_column('t', 'x')", "op.drop_column"),
        (f"op.get_bind()\n{BATCHES}\n{UP}", "op.execute, op.get_bind"),
        (f"{BATCHES}\n{BATCHES}", "op.run_in_batches"),
        (f"op.execute('SET role = x; SELECT 1')\n{BATCHES}", "op.execute"),
        (f"op.execute(unknown)\n{BATCHES}", "op.execute"),
    ],
)
def test_another_operation_is_found(upgrade: str, beside: str) -> None:
    assert of_first(source("0001", None, upgrade, DOWN, locks=LOCKS)) == [
        f"batches-alone: upgrade has {beside} beside op.run_in_batches. {REMEDY}"
    ]


@pytest.mark.parametrize(
    "upgrade", [BATCHES, f"op.execute('SET search_path = pg_catalog')\n{BATCHES}", f"op.execute(PATH)\n{BATCHES}"]
)
def test_a_set_may_come_before_it_and_anything_into_the_other_direction(upgrade: str) -> None:
    text = source("0001", None, upgrade, f"{UP}\n{DOWN}", locks=LOCKS)
    assert of_first(text.replace("\n\n\ndef", "\nPATH = 'SET search_path = pg_catalog'\n\n\ndef", 1)) == []


def test_its_locks_are_to_be_named() -> None:
    (line,) = of_first(source("0001", None, BATCHES, DOWN, locks="none."))
    assert line.startswith("docstring: its Locks name no lock, but the statements in run_in_batches take locks")
