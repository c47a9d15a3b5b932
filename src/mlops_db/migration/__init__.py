"""Carries out schema changes safely. `migrations/env.py` calls `run`; Python programs call `commands`.

- `run`: dispatches a command of Alembic's; `online`, `offline` and `autogenerate` carry it out
- `lock`, `transaction`, `retry`, `blockers`: one run at a time, one transaction a revision, no long waits for locks
- `guard`: refuses downgrades that would lose rows in production
- `operations`: what revisions find in `op.`
- `history`, `progress`, `plan`, `preview`: what a run did, does and would do
- `database_state`, `revision_graph`: refuse a database or revisions that a run cannot start from
- `session`, `callers_connection`: the connection of a run; `view_grants`: what a revision must not lose
"""
