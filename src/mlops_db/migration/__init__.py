"""How a schema change is carried out safely. `migrations/env.py` asks `run`; Python programs use `commands`."""
