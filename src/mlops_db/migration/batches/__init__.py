"""Carries out one statement in batches of rows, each in a transaction of its own: `op.run_in_batches`.

- `statement`: the statement and its bounds
- `positions`: where a run in batches is, in `mlops_internal.batch_positions`
- `online`: the batches of a run
"""
