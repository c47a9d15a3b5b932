"""The report in a real browser: drawn, legible and quiet, on a phone and on a desk, in both themes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_db.reporting.report.build import build_report
from support.browser import Browser, Tab, browser
from support.database import Database

pytestmark = [pytest.mark.browser, pytest.mark.one_postgresql]

PHONE, DESK = 390, 1400
# Charts whose picture has no mark: only axes.
BLANK = """
[...document.querySelectorAll('.chart')].filter((place) => place.clientWidth).filter((place) => {
  const marks = [...place.querySelectorAll('svg .role-mark path, svg .role-mark text, svg .role-mark line')];
  return !marks.some((mark) => mark.getBBox().width + mark.getBBox().height > 0);
}).map((place) => place.ariaLabel)
"""
# Texts that stand on top of each other, and texts that are cut off, in a chart.
OVERLAPPING = """
[...document.querySelectorAll('.chart svg')].flatMap((svg) => {
  const texts = [...svg.querySelectorAll('.role-axis-label text')].filter((text) =>
    text.textContent && getComputedStyle(text).opacity > 0);
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const frame = svg.closest('figure').getBoundingClientRect();
  return texts.filter((text, place) => boxes[place].left < frame.left - 1 || boxes[place].right > frame.right + 1
    || boxes.slice(0, place).some((box) => box.left < boxes[place].right - 1 && boxes[place].left < box.right - 1
      && box.top < boxes[place].bottom - 3 && boxes[place].top < box.bottom - 3)).map((text) => text.textContent);
})
"""
# Contrast as WCAG computes it, of each text with what is painted behind it.
FAINT = """
(() => {
  const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
    .getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const [r, g, b] = rgba(colour).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return 'white';
  };
  const bars = (text) => {
    const box = text.getBoundingClientRect();
    return [...text.closest('svg').querySelectorAll('.mark-rect path, .mark-rect > path')].filter((bar) => {
      const it = bar.getBoundingClientRect();
      return it.left <= box.left && it.right >= box.left && it.top <= box.top + 4 && it.bottom >= box.bottom - 4
        && getComputedStyle(bar).fill !== 'none' && getComputedStyle(bar).opacity > 0;
    }).map((bar) => getComputedStyle(bar).fill);
  };
  const faint = new Set();
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.closest('script, style, noscript, .hidden')) continue;
    const svg = element.closest('svg');
    const style = getComputedStyle(element);
    if (style.opacity === '0') continue;
    const backs = (svg && bars(element).slice(-1)) || [];
    const [one, other] = [luminance(svg ? style.fill : style.color), luminance(backs[0] || behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    looked += 1;
    if (contrast < 4.5) faint.add(`${walker.currentNode.data.trim()} ${contrast.toFixed(2)}`);
  }
  return [looked, [...faint]];
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def demo_page(demo: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(demo, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def edge_page(edges: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(edges, tmp_path_factory.mktemp("edges"))


def write(database: Database, folder: Path) -> Path:
    path = folder / "page.html"
    path.write_text(build_report(database.settings, days=90, models=()), encoding="utf-8")
    return path


def assert_drawn(tab: Tab, page: Path) -> None:
    assert tab.requests == [page.as_uri()]
    assert tab.complaints == []
    assert tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert tab.value(OVERLAPPING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_drawn_and_legible(chromium: Browser, demo_page: Path, width: int, scheme: str) -> None:
    tab = Tab(chromium)
    tab.show(demo_page, width=width, scheme=scheme)
    assert_drawn(tab, demo_page)
    assert tab.value("document.querySelectorAll('.chart svg').length") > 70
    assert tab.value(BLANK) == []
    looked, faint = tab.value(FAINT)
    assert looked > 500
    assert faint == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_hostile_names_and_numbers_are_drawn(chromium: Browser, edge_page: Path, width: int) -> None:
    tab = Tab(chromium)
    tab.show(edge_page, width=width, scheme="light")
    assert_drawn(tab, edge_page)
    # Nobody can draw numbers that are not there: the text says so.
    assert [label for label in tab.value(BLANK) if "failed only" not in label] == []
    assert tab.value("document.querySelectorAll('main script:not([type]), img, iframe').length") == 0


def test_a_tooltip_has_the_numbers_and_stays_text(chromium: Browser, edge_page: Path) -> None:
    tab = Tab(chromium)
    tab.show(edge_page, width=DESK, scheme="light")
    place = tab.value("""
        (() => {
          const chart = document.querySelector('[data-kind=beats]');
          chart.scrollIntoView({block: 'center'});
          const marks = [...chart.querySelectorAll('.mark-rect path')];
          const rows = new Map(marks.map((mark) => [mark.__data__.datum.row, mark]));
          const box = rows.get('<script>alert(1)</script> · performance').getBoundingClientRect();
          return [box.left + box.width / 2, box.top + box.height / 2];
        })()
    """)
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    text = tab.value("document.getElementById('tip').textContent")
    assert text.startswith("<script>alert(1)</script> · performance\n20")
    assert text.endswith("1 of 1 series had a row")
    assert tab.complaints == []


def test_it_prints_in_the_light_theme_on_a4(chromium: Browser, edge_page: Path) -> None:
    tab = Tab(chromium)
    tab.show(edge_page, width=DESK, scheme="dark")
    printed = tab.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
    assert len(printed["data"]) > 100_000
    assert tab.complaints == []
    tab.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert tab.value("getComputedStyle(document.querySelector('figure')).backgroundColor") == "rgb(255, 255, 255)"
    columns = "getComputedStyle(document.querySelector('.pairs')).gridTemplateColumns.split(' ').length"
    assert tab.value(columns) == 2, "the script draws these charts for half of the page"
