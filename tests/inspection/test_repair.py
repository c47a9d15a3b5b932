import pytest

from mlops_db.inspection.repair import BY_HAND, repair_statements
from support.drifts import CASES, Case, line_is


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_repair_of_a_drift_leaves_what_is_by_hand(workshop: Workshop, case: Case) -> None:
    with workshop.drifted(case.drift, given=case.given):
        workshop.repair()
        left = workshop.lines()
        again = repair_statements(workshop.drift())
    assert [line for line in left if not any(line_is(line, expected) for expected in case.remains)] == []
    assert len(left) == len(case.remains)
    assert [statement for statement in again if not statement.startswith(BY_HAND)] == []
