"""Puts the pictures into the page's template."""

import json
import re
from collections.abc import Callable
from typing import Any

from mlops_db import __version__
from mlops_db.errors import printable, require_extra
from mlops_db.reporting.report.labels import moment, number, signed
from mlops_db.reporting.states import STATE, STATES

_BREAKS = re.compile(r"(?<=[._/,-])(?=\w)|(?=[\[(])")


def load_template() -> Callable[..., str]:
    """Load the page's template; returns what fills it. Every text that it gets is escaped.

    Raises:
        MissingExtraError: the extra `report` is not installed.
    """
    with require_extra("report", "the report needs the package jinja2, which is not installed"):
        import jinja2  # noqa: PLC0415  (optional)
        import markupsafe  # noqa: PLC0415  (the same)

    def script_json(value: Any) -> Any:
        """JSON for a script element: none of its characters can end the element or begin a comment."""
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return markupsafe.Markup(text)  # noqa: S704  (so escaped)

    def breakable(text: str) -> Any:
        """A name that may be broken after a mark and before a bracket."""
        escaped = str(markupsafe.escape(printable(text)))
        return markupsafe.Markup(_BREAKS.sub("<wbr>", escaped))  # noqa: S704  (so, too)

    def shown(value: Any) -> Any:
        """A text without control characters, which could also turn the text around them."""
        return printable(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

    environment = jinja2.Environment(
        finalize=shown,
        loader=jinja2.PackageLoader("mlops_db.reporting.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": breakable,
        "moment": moment,
        "number": number,
        "script_json": script_json,
        "signed": signed,
    }
    environment.globals |= {"states": STATES, "state": STATE, "version": __version__}
    return environment.get_template("page.html.j2").render
