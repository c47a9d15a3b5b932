"""`mlops-db report`: the numbers on the page are those of the views, and what a database has not is said."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mlops_db.reporting.report.build import build_report
from mlops_db.reporting.states import RANK, STATES
from support.database import ROOT, TIMEOUT_S, Database
from support.edge_cases import HOSTILE
from support.process import assert_failed
from support.report_page import Chart, Page
from support.roles import role

DAYS = 90
NOT_A_COMMAND = "import sys; sys.modules['{}'] = None; from mlops_db.cli.main import main; sys.exit(main(['report']))"


@pytest.fixture(scope="module")
def written(demo: Database, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file that the command wrote as the reader role about the demo, and what it said."""
    out = tmp_path_factory.mktemp("report") / "page.html"
    with role(demo, "mlops_test_report_reader") as reader:
        assert demo.run("mlops-db", "grant-reader", reader.user).returncode == 0
        done = demo.run(
            "mlops-db", "report", "--out", str(out), POSTGRES_USER=reader.user, POSTGRES_PASSWORD=reader.password or ""
        )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def page(written: tuple[Path, str]) -> Page:
    return Page(written[0].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def edge_page(edges: Database) -> Page:
    return Page(build_report(edges.settings, days=DAYS, models=()))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert not list(tmp_path.glob(".*")), "a temporary file was left"


def shown(value: float | None) -> str:
    """A number as the tables show it."""
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def moment(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def day(step: int) -> Any:
    return moment(step * 86_400_000).date()


def window(page: Page) -> tuple[datetime, datetime]:
    """The time of the page, as it says itself: midnight may have passed since."""
    since, until = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", page.text(""))[:2]
    return utc(since), utc(until) + timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=timezone.utc)


def metric_chart(page: Page, *key: str) -> Chart:
    (chart,) = (one for one in page.charts("metrics", "metric") if one.label.startswith(" ".join(key) + ","))
    return chart


def test_it_says_where_the_file_is_and_how_large(written: tuple[Path, str]) -> None:
    out, said = written
    assert said.startswith(f"{out}: the last 90 days of ")
    size = out.stat().st_size
    assert size < 2_000_000
    assert f"{size / 1e6:.1f} MB" in said
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask


def test_nothing_is_loaded(page: Page) -> None:
    assert "default-src 'none'" in page.policy
    loading = {"src", "href", "srcset", "data", "action", "poster"}
    for tag, name, value in page.attributes:
        assert name not in loading or value.startswith(("#", "data:")), (tag, name, value)
    assert not {"img", "iframe", "object", "embed", "base"} & {*page.elements}
    style = page.html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert page.html.count("vegaEmbed=") == 1


def test_what_is_not_ok_is_what_the_view_says(demo: Database, page: Page) -> None:
    expected = demo.query(
        "SELECT health, model_name || ' · ' || metric_type || ' ' || metric_name, metric_value,"
        " CASE health WHEN 'low' THEN lower_threshold WHEN 'high' THEN upper_threshold END"
        " FROM v_recent_monitoring WHERE health <> 'ok' ORDER BY model_name, metric_type, metric_name"
    )
    expected.sort(key=lambda row: RANK[row[0]])
    assert len(expected) > 8
    rows = page.table("not-ok")
    assert [(row["State"].split()[-1], row["Series"], row["Value"], row["Bound"]) for row in rows] == [
        (state, series, shown(value), shown(bound)) for state, series, value, bound in expected
    ]
    assert all(row["Since"] for row in rows)


@pytest.mark.libraries
def test_each_day_of_a_chart_is_that_of_metric_daily(demo: Database, page: Page) -> None:
    since, until = window(page)
    drawn = page.charts("metrics", "metric")
    assert len(drawn) == 60
    failing = demo.value(
        "SELECT metric_name FROM v_recent_monitoring WHERE health = 'failed' AND metric_name LIKE 'drift_score%'"
    )
    for key in [
        ("fraud", "performance", "f1_score"),
        ("churn", "drift", failing),
        ("lead_scoring", "coverage", "coverage_rate"),
    ]:
        expected = demo.query(
            "SELECT day, minimum, mean, maximum, count, failed FROM reporting.metric_daily(%s, %s)"
            " WHERE model_name = %s AND metric_type = %s AND metric_name = %s ORDER BY day",
            [since, until, *key],
        )
        points = metric_chart(page, *key).data["points"]
        assert [
            (day(one["step"]), one["low"], one["mean"], one["high"], one["values"], one["failed"]) for one in points
        ] == [
            (date, low, None if mean is None else pytest.approx(mean, rel=1e-5), high, count, failed)
            for date, low, mean, high, count, failed in expected
        ]


def test_silence_is_a_gap_and_promotions_are_marked(demo: Database, page: Page) -> None:
    chart = metric_chart(page, "lead_scoring", "coverage", "coverage_rate")
    (gap,) = chart.data["gaps"]
    newest = demo.value(
        "SELECT timestamp FROM v_recent_monitoring WHERE model_name = 'lead_scoring' AND metric_name = 'coverage_rate'"
    )
    assert abs(moment(gap["t"]) - newest) < timedelta(seconds=1)
    assert moment(gap["t2"]) > newest + timedelta(days=3)
    assert metric_chart(page, "fraud", "coverage", "coverage_rate").data["gaps"] == []
    for chart_of_broken in page.charts("metrics", "metric")[:2]:
        assert re.search(", (low|high): ", chart_of_broken.label)
        assert chart_of_broken.data["bounds"], "a bound that is broken is drawn"
    promotions = demo.query(
        "SELECT since, model_version FROM reporting.production_periods"
        " WHERE model_name = 'lead_scoring' AND since >= %s ORDER BY since",
        [window(page)[0]],
    )
    assert len(promotions) > 1
    for (since, version), drawn in zip(promotions, chart.data["promotions"], strict=True):
        assert abs(moment(drawn["t"]) - since) < timedelta(seconds=1)
        assert drawn["version"] == version


def test_the_heat_map_has_each_day_as_a_share_of_its_threshold(demo: Database, page: Page) -> None:
    expected = demo.query(
        "SELECT metric_name, (timestamp AT TIME ZONE 'UTC')::date, max(metric_value / own_threshold)"
        " FROM reporting.metric_history WHERE timestamp >= %s AND model_name = 'fraud' AND own_threshold IS NOT NULL"
        " GROUP BY 1, 2",
        [window(page)[0]],
    )
    (chart,) = (one for one in page.charts("drift", "heat") if one.label.startswith("fraud"))
    shares = {(one["row"], day(one["step"])): one["share"] for one in chart.data["steps"]}
    assert len(expected) > 5 * DAYS
    for name, date, share in expected:
        assert shares[name, date] == pytest.approx(share, rel=5e-3), (name, date)


def test_cards_freshness_periods_and_scores_are_those_of_the_views(demo: Database, page: Page) -> None:
    text = page.text("models")
    for model, version, f1, delta in demo.query(
        "SELECT model_name, model_version, f1_score, f1_delta FROM reporting.production_periods WHERE in_production"
    ):
        assert f"{model} version {version} in production" in text
        assert f"F1 {shown(f1)} {delta:+.4f}" in text
    fresh = demo.query(
        "SELECT model_name, metric_type, count(*)::text, count(*) FILTER (WHERE stale) FROM v_recent_monitoring"
        " GROUP BY 1, 2 ORDER BY count(*) FILTER (WHERE stale) DESC, 1, 2"
    )
    assert [(row["Model"], row["Type"], row["Series"], row["Silent"]) for row in page.table("freshness")] == [
        (model, kind, count, f"◷ stale {stale}" if stale else "none") for model, kind, count, stale in fresh
    ]
    periods = demo.query(
        "SELECT model_name, model_version, in_production, returned, f1_score, f1_delta"
        " FROM reporting.production_periods WHERE coalesce(until, now()) >= %s ORDER BY model_name DESC, since DESC",
        [window(page)[0]],
    )
    (chart,) = page.charts("production", "periods")
    assert len(chart.data["periods"]) == len(periods)
    for row, (model, version, current, returned, f1, delta) in zip(page.table("production"), periods, strict=True):
        assert row["Model"] == model
        assert row["Version"] == f"{'↩ ' if returned else ''}{version}"
        assert (row["Until"] == "now") == current
        assert row["F1"] == shown(f1)
        assert row["F1 change"] == ("none" if delta is None else f"{delta:+.4f}".replace("-", "\u2212"))
    assert any(row["Version"].startswith("↩") for row in page.table("production"))
    scores = demo.query(
        "SELECT model_version, f1_score FROM v_model_timeline WHERE model_name = 'fraud' ORDER BY created_at"
    )
    drawn = next(one for one in page.charts("scores", "scores") if "F1" in one.label and "fraud" in one.label)
    assert [(one["row"], one["score"]) for one in drawn.data["versions"]] == scores


def test_live_values_are_those_of_the_period(demo: Database, page: Page) -> None:
    expected = demo.query(
        "SELECT p.f1_score, min(m.metric_value), avg(m.metric_value), max(m.metric_value)"
        " FROM reporting.production_periods p JOIN reporting.metric_history m ON m.model_name = p.model_name"
        " AND m.timestamp >= p.since AND m.timestamp < coalesce(p.until, 'infinity')"
        " WHERE p.model_name = 'churn' AND m.metric_name = 'f1_score' AND m.timestamp >= %s"
        " GROUP BY p.since, p.f1_score ORDER BY p.since DESC",
        [window(page)[0]],
    )
    (chart,) = (one for one in page.charts("live", "live") if one.label.startswith("F1 of churn"))
    drawn = [(one["offline"], one["low"], one["live"], one["high"]) for one in chart.data["periods"]]
    assert len(drawn) > 3
    assert drawn == [tuple(pytest.approx(value) for value in row) for row in expected]


def test_decisions_have_their_gates_and_the_gates_their_candidates(demo: Database, page: Page) -> None:
    since, _ = window(page)
    decisions = demo.query(
        "SELECT id, decision_timestamp, model_name, model_version FROM v_decision_history"
        " WHERE decision_timestamp >= %s ORDER BY decision_timestamp DESC, id DESC",
        [since],
    )
    rows = [row for row in page.table("decisions") if "Candidate" in row]
    assert f"{len(decisions)} decisions in this time" in page.text("decisions")
    assert len(rows) == min(30, len(decisions))
    for row, (id_, at, model, version) in zip(rows, decisions, strict=False):
        assert row["Decided"] == f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
        assert row["Candidate"] == f"{model} {version}"
        for position, gate, result in demo.query(
            "SELECT position, gate, result FROM reporting.decision_gates WHERE id = %s", [id_]
        ):
            cell = row[gate.replace("_", " ")] if position <= 6 else row["Others"]
            assert result in cell, (row, gate)
    stops = demo.query(
        "SELECT first_failed_gate, count(*) FROM v_decision_history WHERE decision_timestamp >= %s"
        " AND first_failed_gate IS NOT NULL AND action <> 'promote' GROUP BY 1 ORDER BY 2 DESC, 1",
        [since],
    )
    (chart,) = page.charts("stops", "stops")
    assert [(one["row"], one["stopped"]) for one in chart.data["gates"]] == stops


def test_what_is_left_out_is_said_in_numbers(demo: Database, page: Page) -> None:
    assert "60 of 75 series are drawn" in page.text("metrics")
    assert "Not drawn: ✔ ok 15" in page.text("metrics")
    counts = dict(demo.query("SELECT health, count(*) FROM v_recent_monitoring GROUP BY health"))
    words = ", ".join(f"{state.glyph} {state.name} {counts[state.name]}" for state in STATES if state.name in counts)
    assert f"75 series: {words}" in page.text("")


def test_each_chart_has_a_summary_and_each_table_a_caption(page: Page) -> None:
    charts = [chart for section in page.sections.values() for chart in section.charts]
    assert all(len(chart.label) > 20 for chart in charts)
    assert len({chart.label for chart in charts}) == len(charts)
    assert page.elements.count("caption") == page.elements.count("table")
    assert page.elements.count("h1") == 1
    assert page.elements.count("h2") == 10


@pytest.mark.full_postgresql
def test_only_the_models_that_are_asked_for(demo: Database) -> None:
    page = Page(build_report(demo.settings, days=7, models=["churn", "fraud", "churn"]))
    assert "lead_scoring" not in page.html
    assert "Only models churn, fraud." in page.text("")
    assert page.text("models").count("churn") == 1
    (chart, *_) = page.charts("metrics", "metric")
    assert len(chart.data["points"]) > 30, "four hours a step, not a day"


def test_hostile_names_stay_text(edge_page: Page) -> None:
    cards = edge_page.text("models")
    for name in HOSTILE:
        assert name.replace("\u202e", "\\u202e") in cards
    assert "<b>bold</b>" in cards
    for name, text in [("decisions", "<img src=x onerror=alert(2)> {{ 9 * 9 }}"), ("decisions", "{{ 8 * 8 }}")]:
        assert text in edge_page.text(name)
    assert not {"img", "b", "i"} & {*edge_page.elements}
    assert edge_page.elements.count("script") == 2 + sum(len(one.charts) for one in edge_page.sections.values())
    (beats,) = edge_page.charts("freshness", "beats")
    assert {f"{name} · performance" for name in HOSTILE if "\u202e" not in name} <= {
        row["row"] for row in beats.data["steps"]
    }


def test_a_picture_without_values_says_so(edge_page: Page) -> None:
    text = edge_page.text("metrics")
    assert "never came performance ○ missing no row at all Nothing to draw." in text
    assert "ended before performance ✔ ok no row in this time; the newest is 0.4 of" in text
    assert "failed only performance ✖ failed no value at" in text
    assert "Not on the axis: upper bound 1,000,000,000" in text
    assert "Not on the axis: values beyond 8e+307" in text
    assert "1 series has a newest row with a time in the future" in edge_page.text("")
    assert "since nobody knows when" in edge_page.text("models")
    assert "None of 1 version has one." in edge_page.text("scores")
    points = {
        name: metric_chart(edge_page, "edges", "performance", name).data["points"]
        for name in ("one value", "failed only", "huge", "zeros")
    }
    assert [(one["low"], one["alone"]) for one in points["one value"]] == [(0.25, True)]
    assert {(one["low"], one["failed"]) for one in points["failed only"]} == {(None, 1)}
    assert max(one["high"] for one in points["huge"]) == 8e307
    gaps = metric_chart(edge_page, "edges", "performance", "fell silent").data["gaps"]
    assert [moment(gap["t2"]) - moment(gap["t"]) > timedelta(days=39) for gap in gaps] == [True]


def test_low_p_values_are_drift_and_unknown_thresholds_are_counted(edge_page: Page) -> None:
    (chart,) = edge_page.charts("drift", "heat")
    shares: dict[str, list[float]] = {}
    for one in chart.data["steps"]:
        shares.setdefault(one["row"], []).append(one["share"])
    assert shares == {"p-value": [1000, 5, 0.1], "score": [-1, 2.5, 0.5]}
    assert "For 3 series of type drift no threshold above 0 is known" in edge_page.text("drift")


def test_of_many_series_the_worst_are_drawn_and_the_rest_is_in_the_heat_map(head: Database) -> None:
    head.query(
        "INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value, metadata)"
        " SELECT now() - n * interval '1 day', 'model ' || s % 4, 'drift', 'feature ' || s,"
        " CASE WHEN s = 7 AND n = 0 THEN 0.9 ELSE s / 10000.0 END,"
        """ jsonb_build_object('threshold', 0.1, 'drift_detected', s = 7 AND n = 0)"""
        " FROM generate_series(0, 299) AS s, generate_series(0, 3) AS n"
    )
    page = Page(build_report(head.settings, days=5, models=()))
    drawn = page.charts("metrics", "metric")
    assert len(drawn) == 60
    assert drawn[0].label.startswith("model 3 drift feature 7, drifted")
    assert [one["bound"] for one in drawn[0].data["bounds"]] == [0.1]
    assert "own threshold 0.1" in page.text("metrics")
    assert "60 of 300 series are drawn" in page.text("metrics")
    assert "Not drawn: ✔ ok 240" in page.text("metrics")
    maps = page.charts("drift", "heat")
    assert sum(len({row["row"] for row in one.data["steps"]}) for one in maps) == 300
    assert page.elements.count("details") == 3, "the first model is drawn at once, the others when they are opened"


@pytest.mark.full_postgresql
def test_an_empty_database_says_what_it_has_not(head: Database) -> None:
    done = head.run("mlops-db", "report", "--out", "-")
    assert done.returncode == 0, done.stderr
    assert (done.stdout[:15], done.stdout[-7:]) == ("<!DOCTYPE html>", "</html>"), "the page, and nothing else"
    page = Page(done.stdout)
    for section in [*page.sections][1:]:
        assert "There " in page.text(section) or "No " in page.text(section), section
        assert page[section].charts == []


@pytest.mark.full_postgresql
def test_an_unknown_model_is_refused_and_the_old_page_stays(demo: Database, folder: Path) -> None:
    out = folder / "page.html"
    out.write_text("old", encoding="utf-8")
    done = demo.run("mlops-db", "report", "--out", str(out), "--model", "churm", "--model", "churn")
    assert_failed(done, "has no model 'churm'", "It has churn, fraud, lead_scoring.")
    assert done.returncode == 1
    assert out.read_text(encoding="utf-8") == "old"


@pytest.mark.one_postgresql
@pytest.mark.parametrize(
    ("out", "reason"),
    [
        (".", "it is a directory"),
        ("missing/page.html", "there is no directory"),
        ("/dev/null", "it is not a file"),
        ("n" * 300, "name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(demo: Database, folder: Path, out: str, reason: str) -> None:
    done = demo.run("mlops-db", "report", "--out", str(folder / out))
    assert_failed(done, "cannot write", reason, "--out")


@pytest.mark.one_postgresql
@pytest.mark.parametrize("days", ["0", "3651", "1.5", "many"])
def test_the_days_are_limited(demo: Database, days: str) -> None:
    done = demo.run("mlops-db", "report", "--days", days)
    assert done.returncode == 64
    assert "--days" in done.stderr


def test_an_earlier_revision_is_told_to_upgrade(empty: Database) -> None:
    done = empty.run("mlops-db", "report")
    assert done.returncode == 1
    assert "has no tables yet" in done.stderr
    assert "upgrade head" in done.stderr


@pytest.mark.one_postgresql
@pytest.mark.parametrize("package", ["jinja2", "vl_convert"])
def test_without_the_extra_it_names_the_pip_command(demo: Database, package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_A_COMMAND.format(package)],
        env=demo.environment,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'mlops-db[report]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.one_postgresql
def test_nothing_imports_the_charts_before_they_are_drawn() -> None:
    code = "import mlops_db.cli.report, sys; print({'jinja2', 'vl_convert'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    assert done.stdout == "set()\n"
