"""What the pages for users say, for tests that do it."""

import re

from support.database import ROOT

OPERATING = ROOT / "docs" / "operating.md"


def grants_of_jobs() -> str:
    """The grants that a role of the jobs' own needs."""
    found = re.search(r"```sql jobs\n(.*?)```", OPERATING.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]
