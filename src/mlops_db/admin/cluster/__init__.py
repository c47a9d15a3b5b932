"""The database on Citus: its nodes, and what is distributed over them."""
