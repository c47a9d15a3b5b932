"""Shows a run: a line for each revision, notes in between, a bar while the server reports its progress.

People see it in a stream. A program that gives no stream gets the same as log records.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, TextIO

from mlops_db.errors import printable
from mlops_db.terminal import console_of, print_line, styled_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.text import Text

LOG_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """A duration for people: `0.4 s`, `42 s`, `3 min 5 s`."""
    if seconds < 10:  # noqa: PLR2004  (a decimal is useful only below it)
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Progress:
    """Writes to a stream, to a logger, or nowhere. The run and the thread of its BlockerWatch share one.

    Attributes:
        fields: the fields that each record has, such as `target`.
        step_begun: when the current step began, by the monotonic clock; before the first one, when this object did.
    """

    def __init__(self, stream: TextIO | None, log: logging.Logger | None = None) -> None:
        """Take where to write.

        Args:
            stream: for people; None writes nothing, as a library should.
            log: for records; None makes none. With a stream, records are made only if somebody has set a level for this
                logger or for `mlops_db`: otherwise a log on the same terminal would repeat the lines.
        """
        self._stream = stream
        has_level = log is not None and bool(log.level or logging.getLogger("mlops_db").level)  # the root's is for all
        self._log = log if stream is None or has_level else None
        self.fields: dict[str, object] = {}
        console = console_of(stream) if stream is not None and stream.isatty() else None
        # A terminal whose cursor can move.
        self._screen = None if console is None or console.is_dumb_terminal else console
        self._lock = threading.RLock()
        self._label = ""
        self._line_open = False
        self._bar: tuple[Live, Bar] | None = None
        self.step_begun = time.monotonic()
        self._step_fields: dict[str, object] = {}
        self._next_log = 0.0

    def note(self, text: str, *args: object, level: int = logging.INFO, **fields: object) -> None:
        """Write a line of its own, and log it.

        Args:
            text: the line. If there are `args`, it has a `%s` for each of them.
            args: what the line is about.
            level: of the record.
            fields: of the record, for machines.
        """
        self._show(text % args if args else text)
        self.log(level, text, *args, **fields)

    def warn(self, text: str, *args: object, **fields: object) -> None:
        """The same for a warning, which begins with that word in the stream."""
        self._show(f"warning: {text % args if args else text}")
        self.log(logging.WARNING, text, *args, **fields)

    def log(self, level: int, text: str, *args: object, **fields: object) -> None:
        """Log what the stream shows in another way, or not at all. Arguments as for `note`."""
        if self._log is not None and self._log.isEnabledFor(level):
            shown = [printable(one) if isinstance(one, str) else one for one in args]
            self._log.log(level, text if args else printable(text), *shown, extra={**self.fields, **fields})

    def begin(self, label: str, **fields: object) -> None:
        """Show that a step runs; `fields` are for its records."""
        self.log(logging.DEBUG, "%s begins", label, **fields)
        with self._lock:
            self._step_fields = fields
            self._label = f"{label} ... "
            self.step_begun = time.monotonic()
            self._next_log = self.step_begun + LOG_EVERY_S
            self._end_line()
            self._write("\n".join(line.plain for line in self._label_lines()) if self._screen else self._label)
            self._line_open = True

    def done(self) -> None:
        """Show how long the current step took. A step that fails is not shown: its error is."""
        with self._lock:
            self._end_bar()
            took_s = time.monotonic() - self.step_begun
            took = duration(took_s)
            if self._line_open and self._screen is None:
                self._write(f"{took}\n")
                self._line_open = False
            else:
                self._erase_label()
                self._show(f"{self._label}{took}")
        self.log(logging.INFO, "%s: done in %s", self._step, took, **self._step_fields, duration_s=round(took_s, 3))

    def stop(self) -> None:
        """End the bar and the open line, so that the terminal is as before."""
        with self._lock:
            drawn = self._bar is not None
            self._end_line()
            if drawn:
                self._show(self._label)

    def report(self, what: str, done: int, total: int, *, left: str = "") -> None:
        """Show how far the current step is: a bar on a terminal, a line every ten seconds in a log.

        Args:
            what: what runs.
            done: how much of it is done.
            total: how much there is; 0 if that is not known.
            left: how long the rest takes, for the log; the bar estimates it.
        """
        self.log(logging.DEBUG, "%s: %s", self._step, what, **self._step_fields, done=done, total=total)
        with self._lock:
            if self._screen is not None:
                self._draw(self._screen, what, done, total)
            elif time.monotonic() >= self._next_log:
                self._next_log = time.monotonic() + LOG_EVERY_S
                share = f"{100 * done // total} %" if total else "started"
                self._show(", ".join(filter(None, (f"{self._step}: {what}", share, left))))

    @property
    def _step(self) -> str:
        return self._label.removesuffix(" ... ")

    def _show(self, text: str) -> None:
        with self._lock:
            self._end_line()
            if self._stream is not None:
                print_line(text, file=self._stream)

    def _draw(self, screen: Console, what: str, done: int, total: int) -> None:
        """Draw the label and the bar in the place of the label's line."""
        if self._bar is None:
            from rich.console import Group  # noqa: PLC0415  (only a long command on a terminal needs it)
            from rich.live import Live  # noqa: PLC0415
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            self._erase_label()
            bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            bar.add_task(what, total=total or None, completed=done)
            live = Live(Group(*self._label_lines(), bar), console=screen, transient=True)
            live.start(refresh=True)
            self._bar = live, bar
        _, bar = self._bar
        bar.update(bar.task_ids[0], description=what, completed=done, total=total or None)

    def _label_lines(self) -> list[Text]:
        return [] if self._screen is None else styled_lines([self._label], self._screen)

    def _erase_label(self) -> None:
        """Move the cursor to where the label's line began, and leave nothing of it."""
        if self._line_open and self._screen is not None:
            from rich.control import Control  # noqa: PLC0415  (only a terminal needs it)
            from rich.segment import ControlType  # noqa: PLC0415

            erase = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))
            above = [Control.move(0, -1), erase] * (len(self._label_lines()) - 1)
            self._screen.control(erase, *above)
            self._line_open = False

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _end_line(self) -> None:
        self._end_bar()
        if self._line_open:
            self._write("\n")
            self._line_open = False

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()
