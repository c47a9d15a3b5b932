"""The Python blocks of the pages, as the programs that a reader would make of them."""

import re

from support.database import ROOT

BLOCK = re.compile(r"^```python *(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOOLS = ("evidently", "mlflow", "airflow")


def example(page: str, *tools: str) -> str:
    """A page's blocks, each at its line of the page; of those that need another tool only those that need `tools`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        if not block[1] or block[1] in tools:
            start = text.count("\n", 0, block.start(2))
            code = block[2].splitlines()
            lines[start : start + len(code)] = code
    return "\n".join(lines) + "\n"
