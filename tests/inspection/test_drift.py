import pytest

from support.drifts import CASES, Case, line_is


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_drift_is_told_as_what_it_is_and_nothing_else_is(workshop: Workshop, case: Case) -> None:
    with workshop.drifted(case.drift, given=case.given):
        lines = workshop.lines()
    assert [line for line in lines if not any(line_is(line, expected) for expected in case.lines)] == []
    assert [expected for expected in case.lines if not any(line_is(line, expected) for line in lines)] == []
    assert len(lines) == len(case.lines)
