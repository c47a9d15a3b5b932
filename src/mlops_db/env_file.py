"""Reads the `.env` file, and refuses a file if a part of it would be lost."""

import io
import re
import stat
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_db.errors import SettingsError

if TYPE_CHECKING:
    from dotenv.parser import Binding


def read_env_file(path: Path, names: Collection[str]) -> dict[str, str]:
    """Read the variables of these names; none if there is no file.

    Raises:
        SettingsError: the file cannot be read, or one of its lines is not understood. The message names the line.
    """
    text = _read_text(path)
    if not text:
        return {}
    from dotenv.parser import parse_stream  # noqa: PLC0415  (0.4 s on a slow machine, and most containers have no .env)

    found = {}
    for binding in parse_stream(io.StringIO(text)):
        fault = _find_fault(binding, names)
        if fault:
            source = binding.original.string
            blank_lines = source[: len(source) - len(source.lstrip())].count("\n")
            raise SettingsError(
                f"{path}: line {binding.original.line + blank_lines} {fault}",
                hint="Write NAME=value, one setting a line. Quote the value at both ends, or not at all.",
            )
        # A line without a value, such as `export MLOPS_ENV`, changes nothing.
        if binding.key is not None and binding.key in names and binding.value is not None:
            found[binding.key] = binding.value
    return found


def _read_text(path: Path) -> str:
    """Read the whole file; empty text if there is none."""
    reason = "it is not text in UTF-8"
    try:
        # Before the file is opened: opening a FIFO would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            reason = "it is not a regular file"
        elif "\0" not in (text := path.read_text(encoding="utf-8-sig")):  # UTF-16 without its mark is full of them
            return text
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return ""
        reason = "it is a broken link"
    except UnicodeDecodeError:
        pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise SettingsError(
        f"{path} cannot be read: {reason}", hint="Make it a file of UTF-8 text that this user may read, or remove it."
    )


def _find_fault(binding: "Binding", names: Collection[str]) -> str:
    """Why a statement of the file would be lost or misread; empty text if it would not.

    python-dotenv accepts more than people mean: a quote that its line does not close extends to the next quote, and any
    text before a `=` is a name.
    """
    if binding.error:
        return "is not NAME=value, or a quote in it is not closed"
    ours = f"(?:{'|'.join(names)})"
    key, value = binding.key or "", binding.value or ""
    statement = binding.original.string.strip()
    written = statement.partition("=")[2]
    bare = "" if written.lstrip().startswith(("'", '"')) else value
    further_lines = statement.partition("\n")[2]
    another = rf"(?:^[^\w\n]*|[\s;])({ours})\W?\s*="
    swallowed = re.search(another, further_lines or bare, re.IGNORECASE | re.MULTILINE)
    if swallowed:
        return f"swallows the setting {swallowed[1].upper()}"
    one_quote = further_lines or (bare.endswith(("'", '"')) and bare.count(bare[-1]) == 1)
    if one_quote and key in names and not key.endswith("PASSWORD"):
        return f"gives {key} a value with a quote at one end only"
    seen = "".join(character for character in key if unicodedata.category(character) != "Cf")
    meant = re.search(rf"(?<!\w){ours}(?!\w)", seen, re.IGNORECASE)
    if meant and key not in names:
        return f"misspells {meant[0].upper()}: write it in capitals, with nothing in or around it"
    # python-dotenv before 1.2.4 takes the comment for the value; the constraints of an Airflow may forbid 1.2.4.
    return "has a comment in place of a value" if bare and re.match(r"\s+#", written) else ""
