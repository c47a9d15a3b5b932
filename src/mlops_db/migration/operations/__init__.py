"""What revisions find in `op.` beside Alembic's own operations.

Revisions import nothing of this package. Importing this module registers every operation; env.py does it through
`migration.run`. Each operation also writes itself in `--sql` mode.
"""

from mlops_db.migration.operations import constraints, indexes, sql_files, stop_if_broken
from mlops_db.migration.operations.sql_files import GUARDED, REVISION_FILE
from mlops_db.migration.operations.timeouts import OPTIONS

__all__ = ["GUARDED", "OPTIONS", "REVISION_FILE", "constraints", "indexes", "sql_files", "stop_if_broken"]
