"""The Python examples of the pages, as programs."""

import re

from support.database import ROOT

BLOCK = re.compile(r"^```python *(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAIN = ""
TOOLS = ("evidently", "mlflow", "airflow", "external_python", "matplotlib")


def example(page: str, *kinds: str) -> str:
    """The blocks of a page that need one of these tools, or that are PLAIN. Each keeps its line number."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        if block[1] in kinds:
            start = text.count("\n", 0, block.start(2))
            code = block[2].splitlines()
            lines[start : start + len(code)] = code
    return "\n".join(lines) + "\n"
