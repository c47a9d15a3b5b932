"""`python -m mlops_db` is `mlops-db`."""

import sys

from mlops_db.cli.main import main

sys.exit(main())
