"""Rows of metrics: what a row may hold, how rows are written, and how they are read back. `db.monitoring` uses it."""
