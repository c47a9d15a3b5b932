"""The Python blocks of the pages, as the programs that a reader would make of them."""

import re

from support.database import ROOT

BLOCK = re.compile(r"^```python *(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAIN = ""
TOOLS = ("evidently", "mlflow", "airflow", "external_python", "fastapi", "matplotlib")


def example(page: str, *kinds: str) -> str:
    """A page's blocks of these kinds, each at its line of the page: those that need a tool, or PLAIN ones."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        if block[1] in kinds:
            start = text.count("\n", 0, block.start(2))
            code = block[2].splitlines()
            lines[start : start + len(code)] = code
    return "\n".join(lines) + "\n"
