"""How long a statement of a job may wait for a lock, and take: as the settings say, unless somebody says less.

The two come with the connection, so that RESET ALL and DISCARD ALL go back to them. An option would take the place of
what the role or the database is set to, which is looked for, and holds if it is shorter.
"""

from typing import Any

from mlops_db.server.cursor import SafeCursor
from mlops_db.server.pins import given_options
from mlops_db.settings import Settings

# What ours are, beside what is in force: a lock_timeout of ours is not for the advisory locks of `turns`.
_OURS = "mlops_db.pool"

_SET_FOR_US = """
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
        options: settings of the server that a connection is to be opened with.
        statements: what to say at the beginning of a transaction where no options arrive, on the safe search path.
    """

    def __init__(self, settings: Settings) -> None:
        """Take them from the settings; 0 is none."""
        given = {"lock_timeout": settings.pool_lock_timeout, "statement_timeout": settings.pool_statement_timeout}
        self._ours = {name: milliseconds for name, milliseconds in given.items() if milliseconds}
        options = given_options(settings.parameters).lower().replace("-", "_")
        self._in_options = any(name in options for name in self._ours)
        self._settled = not self._ours
        self.options = self._with_marks(self._ours)
        self.statements = "".join(
            f"SELECT set_config('{name}', '{ours}', true), set_config('{_OURS}_{name}', '{ours}', true)"
            f" WHERE NOT current_setting('{name}')::interval BETWEEN '1 ms' AND '{ours} ms'; "
            for name, ours in self._ours.items()
        )

    def are_settled(self, cursor: SafeCursor) -> bool:
        """Whether nobody else sets one of them, too, or they were compared before.

        Args:
            cursor: of a session with the options.
        """
        if self._settled or self._in_options:
            return self._settled
        cursor.execute(_SET_FOR_US, (list(self._ours),))
        return cursor.fetchone() == (False,)

    def settle(self, cursor: SafeCursor) -> None:
        """Take the shorter one of ours and theirs.

        Args:
            cursor: of a session without the options.
        """
        cursor.execute(_IN_FORCE, (list(self._ours),))
        theirs: dict[str, Any] = dict(cursor.fetchall())
        self.options = self._with_marks({name: min(ours, theirs.get(name, ours)) for name, ours in self._ours.items()})
        self._settled = True

    def _with_marks(self, timeouts: dict[str, int]) -> dict[str, str]:
        marks = {f"{_OURS}_{name}": str(milliseconds) for name, milliseconds in self._ours.items()}
        return {name: str(milliseconds) for name, milliseconds in timeouts.items()} | marks
