"""How long does the import take that jobs do before they connect?

Airflow imports every DAG file every few seconds. Fresh interpreters are timed in turn (A B C A B C ...), after one
round that is not counted, from the beginning of the import to its end. Exit code 0 if importing `DatabaseManager` and
`get_db_manager` and creating a manager takes at most 0.25 times as long as importing SQLAlchemy after that.

    uv run python benchmarks/import_time.py
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version

from throwaway_server import print_bar, print_table, spread

BAR = 0.25
OURS = "from mlops_db import DatabaseManager, get_db_manager"
MADE = f"{OURS}; get_db_manager()"
ON_TOP = "import sqlalchemy"
# The code that runs first, untimed, and the code that is timed.
CASES = (
    ("", "import mlops_db"),
    ("", OURS),
    ("", MADE),
    (MADE, ON_TOP),
    (MADE, "import psycopg2"),
    ("", ON_TOP),
)
PROGRAM = """\
import sys, time
first, timed = (compile(source, "<benchmark>", "exec") for source in sys.argv[1:])
exec(first)
began = time.perf_counter()
exec(timed)
print(time.perf_counter() - began)
"""


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed (default: 15)")
    rounds: int = parser.parse_args().rounds
    times: dict[tuple[str, str], list[float]] = {case: [] for case in CASES}
    for number in range(rounds + 1):
        for case, seconds in times.items():
            took = timed(*case)
            if number:
                seconds.append(took)
    reference = statistics.median(times[MADE, ON_TOP])
    print(f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')}; {rounds} rounds\n")
    print_table(
        ("timed", "after", "median ms", "least", "greatest", "ratio"),
        [
            (
                f"`{what}`",
                f"`{first}`" if first else "",
                *spread(seconds),
                f"{statistics.median(seconds) / reference:.2f}",
            )
            for (first, what), seconds in times.items()
        ],
    )
    ratio = statistics.median(times["", MADE]) / reference
    return 0 if print_bar("mlops_db and a manager, beside SQLAlchemy on top of it", ratio, BAR) else 1


def timed(first: str, what: str) -> float:
    """Time it in a new interpreter, in seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, first, what],
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
