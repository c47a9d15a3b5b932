"""Shows a run to people: a line for each revision, notes in between, a bar while the server reports its progress."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TextIO

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
    """Writes to a stream, or nowhere. The run and the thread of its BlockerWatch share one."""

    def __init__(self, stream: TextIO | None) -> None:
        """Take the stream; None writes nothing, as a library should."""
        self._stream = stream
        console = console_of(stream) if stream is not None and stream.isatty() else None
        # A terminal whose cursor can move.
        self._screen = None if console is None or console.is_dumb_terminal else console
        self._lock = threading.RLock()
        self._label = ""
        self._line_open = False
        self._bar: tuple[Live, Bar] | None = None
        self.step_begun = time.monotonic()  # or this object's beginning, before the first step
        self._next_log = 0.0

    def note(self, text: str) -> None:
        """Write a line of its own."""
        with self._lock:
            self._end_line()
            if self._stream is not None:
                print_line(text, file=self._stream)

    def begin(self, label: str) -> None:
        """Show that a step runs."""
        with self._lock:
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
            took = duration(time.monotonic() - self.step_begun)
            if self._line_open and self._screen is None:
                self._write(f"{took}\n")
                self._line_open = False
            else:
                self._erase_label()
                self.note(f"{self._label}{took}")

    def stop(self) -> None:
        """End the bar and the open line, so that the terminal is as before."""
        with self._lock:
            drawn = self._bar is not None
            self._end_line()
            if drawn:
                self.note(self._label)

    def report(self, what: str, done: int, total: int, *, left: str = "") -> None:
        """Show how far the current step is: a bar on a terminal, a line every ten seconds in a log.

        Args:
            what: what runs.
            done: how much of it is done.
            total: how much there is; 0 if that is not known.
            left: how long the rest takes, for the log; the bar estimates it.
        """
        with self._lock:
            if self._screen is not None:
                self._draw(self._screen, what, done, total)
            elif time.monotonic() >= self._next_log:
                self._next_log = time.monotonic() + LOG_EVERY_S
                share = f"{100 * done // total} %" if total else "started"
                label = self._label.removesuffix(" ... ")
                self.note(", ".join(filter(None, (f"{label}: {what}", share, left))))

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
