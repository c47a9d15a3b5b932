"""The advisory lock of runs; and who holds a lock, for the error of a session that did not get it."""

RUN_LOCK = 0x6D6C6F70735F7275  # "mlops_ru" in ASCII; advisory locks count per database


def holds(key: str) -> str:
    """SQL condition on a row `l` of pg_locks: it holds the lock of this 64-bit key."""
    return f"""
           l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.classid = ({key} >> 32 & 4294967295)::oid AND l.objid = ({key} & 4294967295)::oid
    """


def holding_sessions(key: str) -> str:
    """SQL from FROM on: the sessions `l`, with their activity `a`, that hold the lock of this 64-bit key."""
    return f" FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid WHERE {holds(key)}"


def select_holders(key: str) -> str:
    """SQL for the text that names those sessions; NULL if there are none."""
    return f"""
    SELECT string_agg(CASE WHEN l.pid IS NULL THEN 'a prepared transaction (pg_prepared_xacts)'
                           ELSE format('pid %%s (%%s)', l.pid, concat_ws(', ', nullif(a.application_name, ''),
                                                                         'role ' || a.usename)) END, '; ')
    {holding_sessions(key)}
    """
