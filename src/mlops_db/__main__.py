"""Runs `mlops-db` for `python -m mlops_db`."""

import sys

from mlops_db.cli.main import main

sys.exit(main())
