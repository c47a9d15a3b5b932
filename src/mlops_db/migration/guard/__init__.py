"""The guard of rows: in production, a downgrade must not lose any.

It looks twice. `sql_losses` reads the SQL of a downgrade before the run begins. `row_guard` watches each statement
while the downgrade runs, and refuses one that would lose rows before it commits.

- `table_changes`: the tables at one moment, and what a statement did to them
- `row_values`, `row_comparison`: counts rows and values, and finds out whether they are still somewhere else
- `table_copies`: tables that are copied while others use them, of which the numbers of rows are compared
"""
