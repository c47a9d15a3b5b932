"""Show which series are not ok, worst first, since when and why; for cron, Airflow and Kubernetes.

The exit code is 1 if a series is in a state of --fail-on, else 0. Without --fail-on each state but ok fails: low, high,
failed, stale, missing and drifted. `--fail-on low,high,failed,stale,missing` shows drift and does not fail for it.

It needs no more than the privileges of `mlops-db grant-reader`.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from mlops_db.cli.output import Styled, print_json, print_line, print_table
from mlops_db.cli.parser import add_json
from mlops_db.errors import RefusedError, printable
from mlops_db.reporting.health import SeriesHealth, read_health
from mlops_db.reporting.snapshot import open_snapshot
from mlops_db.reporting.states import STATE, STATES
from mlops_db.settings import Settings

COLUMNS = ("state", "series", "since (UTC)", "reason")
NOT_OK = tuple(state.name for state in STATES if state.name != "ok")
_MAX_MODELS = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="only series of this model; may be repeated"
    )
    parser.add_argument(
        "--fail-on",
        type=_states,
        default=NOT_OK,
        metavar="STATES",
        help=f"the states for which the exit code is 1, separated by commas (default: {','.join(NOT_OK)})",
    )
    add_json(parser)


def run(options: Namespace) -> int:
    """Print what is not ok; 1 if a series is in a state of --fail-on, else 0."""
    settings = Settings.from_environment()
    with open_snapshot(settings) as cursor:
        found = read_health(cursor, options.model)
        known = {one.model_name for one in found}
        if not found or not known.issuperset(options.model):
            everywhere = {one.model_name for one in read_health(cursor)}
            _refuse(settings, sorted({*options.model} - known), sorted(everywhere))
    fails = any(one.state in options.fail_on for one in found)
    counts = Counter(one.state for one in found)
    not_ok = [one for one in found if one.state != "ok"]
    if options.json:
        print_json({
            "target": settings.target,
            "state": found[0].state,
            "fails": fails,
            "series": len(found),
            "counts": {state.name: counts[state.name] for state in STATES},
            "not_ok": [_for_json(one) for one in not_ok],
        })  # fmt: skip
    else:
        if not_ok:
            print_table(COLUMNS, [_row(one) for one in not_ok], wrapped=COLUMNS[1:])
            print_line()
        print_line(*_summary(counts, len(not_ok)))
    return int(fails)


def _refuse(settings: Settings, unknown: Sequence[str], models: Sequence[str]) -> None:
    """Refuse a database without series, or models that have none.

    Raises:
        RefusedError: always.
    """
    if not models:
        raise RefusedError(
            f"{settings.target} has no series of metrics yet",
            hint="`db.monitoring.log` stores a first value, and `mlops-db demo` makes up a year of them.",
        )
    shown = ", ".join(models[:_MAX_MODELS])
    more = f" and {len(models) - _MAX_MODELS:,} others" if len(models) > _MAX_MODELS else ""
    raise RefusedError(
        f"{settings.target} has no series of model {', '.join(map(repr, unknown))}",
        hint=f"It has series of {shown}{more}.",
    )


def _states(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in NOT_OK:
            raise ArgumentTypeError(f"{name!r} is no state that can fail; these are {', '.join(NOT_OK)}")
    return names


def _row(one: SeriesHealth) -> tuple[str, ...]:
    since = "" if one.since is None else f"{one.since:%Y-%m-%d %H:%M}{'' if one.since_is_exact else ' or earlier'}"
    series = f"{one.model_name} {one.metric_type} {one.metric_name}"
    return _state(one.state), printable(series), since, printable(one.reason)


def _state(name: str) -> Styled:
    return Styled(f"{STATE[name].glyph} {name}", STATE[name].style)


def _summary(counts: Counter[str], not_ok: int) -> list[str]:
    total = counts.total()
    if not not_ok:
        return [
            Styled(STATE["ok"].glyph, STATE["ok"].style),
            f" {'all ' if total > 1 else ''}{total:,} series {'are' if total > 1 else 'is'} ok",
        ]
    parts = [f"{counts[name]:,} {name}" for name in NOT_OK if counts[name]]
    return [f"{not_ok:,} of {total:,} series {'are' if not_ok > 1 else 'is'} not ok: {', '.join(parts)}"]


def _for_json(one: SeriesHealth) -> dict[str, object]:
    fields = asdict(one)
    for name in ("age", "expected_interval"):
        length = fields.pop(name)
        fields[f"{name}_s"] = None if length is None else length.total_seconds()
    return fields
