"""Carries out one statement in batches of rows, each in a transaction of its own: `op.run_in_batches`.

- `statement`: the statement and its bounds
- `job`: the statement of one step, and the SQL that a run and a script share
- `positions`: the table that says how far a job is
- `online`: the batches of a run
- `reserve`: disk space that a run holds meanwhile
- `script`: the batches of `--sql`
"""
