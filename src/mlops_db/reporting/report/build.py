"""Reads a database and writes the report about it."""

from collections.abc import Callable, Sequence

from mlops_db.errors import RefusedError
from mlops_db.reporting.report import charts, decisions, drift, metrics, now, production, series, versions, window
from mlops_db.reporting.report.template import load_template
from mlops_db.reporting.snapshot import open_snapshot
from mlops_db.server.cursor import SafeCursor
from mlops_db.settings import Settings

_MOST_NAMED = 10
# One query a view: a reader may not read on Citus what is on the coordinator and on the workers in the same query.
_WITH_MODELS = ("v_model_timeline", "v_recent_monitoring", "v_decision_history")


def build_report(
    settings: Settings, *, days: int, models: Sequence[str], progress: Callable[[int, int], None] = lambda *_: None
) -> str:
    """Make the report: one HTML page that loads nothing.

    Args:
        settings: the database. The role needs the privileges of `mlops-db grant-reader`.
        days: how many days before now it reaches back.
        models: the models that it is about; all if it is empty.
        progress: called with the number of parts that are done, and of all parts; with 0 once nothing is in the way.

    Raises:
        MissingExtraError: the extra `report` is not installed.
        RefusedError: there is no model of that name. The other errors of `open_snapshot`, too.
    """
    parts = 4
    models = list(dict.fromkeys(models))
    # Before the database is asked: they fail without the extra.
    template = load_template()
    charts.find_library()
    with open_snapshot(settings) as cursor:
        known = _read_models(cursor, settings, models)
        progress(0, parts)
        span = window.read_window(cursor, days)
        every = series.read_series(cursor, span, models)
        progress(1, parts)
        periods = production.read_production(cursor, span, models)
        decided = decisions.read_decisions(cursor, span, models)
        own = drift.read_own(cursor, span, models)
        scored = versions.read_versions(cursor, models)
    progress(2, parts)
    kinds, vega = charts.compile_kinds(span), charts.vega()
    progress(3, parts)
    chosen, left_out = metrics.choose(every.series)
    cards = now.make_cards(models or known, every.series, periods, span)
    page = template(
        target=settings.target,
        models=models,
        window=span,
        every=every,
        counts=metrics.count_states(every.series),
        troubles=now.list_troubles(every.series, span),
        cards=cards,
        freshness=now.draw_freshness(every.series, span),
        multiples=metrics.draw_metrics(chosen, own, periods, span),
        drawn=len(chosen),
        left_out=metrics.count_states(left_out),
        drift=drift.draw_drift(every.series, own, left_out, span),
        timeline=production.draw_timeline(periods, span),
        decisions=decided,
        scores=versions.draw_scores(scored, [card.name for card in cards[0]]),
        live=production.draw_live(periods),
        kinds=kinds,
        vega=vega,
    )
    progress(parts, parts)
    return page


def _read_models(cursor: SafeCursor, settings: Settings, wanted: Sequence[str]) -> list[str]:
    """Read the names of the models.

    Raises:
        RefusedError: one of those that are wanted is not there.
    """
    names: set[str] = set()
    for view in _WITH_MODELS:
        cursor.execute(f"SELECT DISTINCT model_name FROM public.{view}")
        names.update(name for (name,) in cursor.fetchall())
    cursor.execute("SELECT name FROM unnest(%s::text[]) AS name ORDER BY name", (list(names),))
    known = [name for (name,) in cursor.fetchall()]
    unknown = sorted(set(wanted) - set(known))
    if not unknown:
        return known
    named = ", ".join(known[:_MOST_NAMED])
    more = f" and {len(known) - _MOST_NAMED:,} others" if len(known) > _MOST_NAMED else ""
    raise RefusedError(
        f"{settings.target} has no model {', '.join(map(repr, unknown))}",
        hint=f"It has {named}{more}." if known else "It has no model yet: `mlops-db demo` makes up three.",
    )
