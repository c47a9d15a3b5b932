"""What revisions find in `op.` beside Alembic's own operations.

Revisions import nothing of this package. Importing this module registers every operation; env.py does it through
`migration.run`. Each operation also writes itself in `--sql` mode.
"""

from mlops_db.migration.operations import batches, constraints, indexes, sql_files, stop_if_broken
from mlops_db.migration.operations.sql_files import REVISION_FILE
from mlops_db.migration.operations.timeouts import OPTIONS

__all__ = ["OPTIONS", "REVISION_FILE", "batches", "constraints", "indexes", "sql_files", "stop_if_broken"]
