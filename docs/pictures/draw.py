"""Draw the pictures of docs/dashboards.md: the report and `mlops-db health` about a fresh demo.

It runs a throwaway server on 127.0.0.1:5432, which must be free, and the Chromium of the machine.

    uv run --with pillow python docs/pictures/draw.py
"""

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from support.browser import Tab, browser
from support.cluster import embedded_programs, throwaway_cluster
from support.database import SCRIPTS, clean_environment

HERE = Path(__file__).parent
# Pixels: the widths of the page, and what is left free above and below a part.
DESK, PHONE, MARGIN = 1100, 390, 9
# Characters.
TERMINAL = 124
COLOURS = 64
# Sharp on a screen with twice as many pixels, and still small.
SCALE = 1.5
READER = "mlops_reader"
# The parts of the page, as the elements that a picture reaches over.
PARTS = {
    "not-ok": "#not-ok",
    "metrics": "#metrics > h2, #metrics h3:first-of-type + .multiples figure:nth-child(-n+6)",
    "drift": "#drift > h2, #drift figure",
    "decisions": "#decisions",
}
CARD = "header, #not-ok tbody tr:first-child"
PRODUCTION = "#production > h2, #production > figure"
BOX = """
(() => {
  const boxes = [...document.querySelectorAll(%r)].map((element) => element.getBoundingClientRect());
  const top = Math.min(...boxes.map((box) => box.top)) + scrollY;
  return [top, Math.max(...boxes.map((box) => box.bottom)) + scrollY - top];
})()
"""


def main() -> None:
    """Fill a server with the demo, and draw."""
    settings = {"listen_addresses": "'127.0.0.1'", "port": "5432"}
    with (
        throwaway_cluster(embedded_programs(), **settings),
        tempfile.TemporaryDirectory() as folder,
        browser(Path(folder) / "profile") as chromium,
    ):
        for command in (["init"], ["demo", "--seed", "1"], ["grant-reader", READER, "--create"]):
            run("postgres", *command)
        quarter, year = Path(folder) / "quarter.html", Path(folder) / "year.html"
        run(READER, "report", "--out", str(quarter))
        run(READER, "report", "--days", "365", "--out", str(year))
        draw_terminal(run(READER, "health", fails=True, FORCE_COLOR="1", COLUMNS=str(TERMINAL)))
        tab = Tab(chromium)
        # A scroll bar would be gone in the pictures, and the lines would be longer there than where they were measured.
        tab.call("Emulation.setScrollbarsHidden", hidden=True)
        tab.show(quarter, width=DESK, scheme="light")
        for name, elements in PARTS.items():
            draw(tab, name, place(tab, elements), DESK)
        tab.show(year, width=DESK, scheme="dark")
        draw(tab, "production", place(tab, PRODUCTION), DESK)
        tab.show(quarter, width=PHONE, scheme="light")
        draw(tab, "phone", place(tab, CARD), PHONE)


def run(user: str, *command: str, fails: bool = False, **environment: str) -> str:
    """Run a command of mlops-db as a role; gives its output."""
    where = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_USER": user, "MLOPS_READER_PASSWORD": "secret"}
    done = subprocess.run(
        [str(SCRIPTS / "mlops-db"), *command],
        env=clean_environment(**where, **environment),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=not fails,
    )
    return done.stdout


def place(tab: Tab, elements: str) -> tuple[float, float]:
    """Where the first of some elements begins on the page, and the height of all with a margin, in pixels."""
    top, height = tab.value(BOX % elements)
    return top - MARGIN, height + 2 * MARGIN


def draw(tab: Tab, name: str, where: tuple[float, float], width: int) -> None:
    """Write a picture of a part of the page, with few colours."""
    top, height = where
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": SCALE}
    shot = tab.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


def draw_terminal(output: str) -> None:
    """Write what a terminal shows as a picture, in the reader's own font."""
    console = Console(record=True, file=io.StringIO(), width=TERMINAL)
    console.print(Text.from_ansi("$ mlops-db health\n" + output))
    own_font = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title="mlops-db health", code_format=own_font, unique_id="health")
    (HERE / "health.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())  # no .env of the checkout is read
    main()
