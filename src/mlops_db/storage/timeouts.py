"""The lock_timeout and statement_timeout of jobs: the shorter one of the settings' and the role's or the database's.

They are options of the connection, so that RESET ALL and DISCARD ALL restore them. An option overrides the setting of
the role or the database. So that setting is read first, and is used if it is shorter.
"""

from typing import Any

from mlops_db.server.cursor import SafeCursor
from mlops_db.server.pins import find_options
from mlops_db.settings import Settings

# Settings that hold the pool's own values, so that `transaction_lock` knows whether a lock_timeout is the pool's.
_MARK = "mlops_db.pool"

_SET_BY_OTHERS = """
SELECT EXISTS (
    SELECT FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c (setting)
     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
       AND s.setrole IN (0, (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = session_user))
       AND split_part(c.setting, '=', 1) = ANY (%s))
"""
_IN_FORCE = "SELECT name, setting::bigint FROM pg_settings WHERE name = ANY (%s) AND setting <> '0'"


class Timeouts:
    """The timeouts of one pool's connections.

    Attributes:
        options: settings of the server to open a connection with.
        statements: SQL for the beginning of a transaction where a pooler drops options, on the safe search path.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the timeouts from the settings; 0 is no timeout."""
        given = {"lock_timeout": settings.pool_lock_timeout, "statement_timeout": settings.pool_statement_timeout}
        self._ours = {name: milliseconds for name, milliseconds in given.items() if milliseconds}
        options = find_options(settings.parameters).lower().replace("-", "_")
        self._in_options = any(name in options for name in self._ours)
        self._settled = not self._ours
        self.options = self._add_marks(self._ours)
        self.statements = "".join(
            f"SELECT set_config('{name}', '{ours}', true), set_config('{_MARK}_{name}', '{ours}', true)"
            f" WHERE NOT current_setting('{name}')::interval BETWEEN '1 ms' AND '{ours} ms'; "
            for name, ours in self._ours.items()
        )

    def are_settled(self, cursor: SafeCursor) -> bool:
        """Whether no setting of the role or the database has to be compared with the pool's, or it was before.

        Args:
            cursor: of a session with the options.
        """
        if self._settled or self._in_options:
            return self._settled
        return not cursor.value(_SET_BY_OTHERS, (list(self._ours),))

    def settle(self, cursor: SafeCursor) -> None:
        """Compare the timeouts with those in force, and take the shorter ones.

        Args:
            cursor: of a session without the options.
        """
        cursor.execute(_IN_FORCE, (list(self._ours),))
        others: dict[str, Any] = dict(cursor.fetchall())
        self.options = self._add_marks({name: min(ours, others.get(name, ours)) for name, ours in self._ours.items()})
        self._settled = True

    def _add_marks(self, timeouts: dict[str, int]) -> dict[str, str]:
        marks = {f"{_MARK}_{name}": str(milliseconds) for name, milliseconds in self._ours.items()}
        return {name: str(milliseconds) for name, milliseconds in timeouts.items()} | marks
