"""Shows a run to people: a line for each revision, notes in between, a bar while the server reports its progress."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

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
        self._terminal = stream is not None and stream.isatty()
        self._lock = threading.RLock()
        self._label = ""
        self._line_open = False
        self._bar: Bar | None = None
        self.step_begun = time.monotonic()  # or this object's beginning, before the first step
        self._next_log = 0.0

    def note(self, text: str) -> None:
        """Write a line of its own."""
        with self._lock:
            self._end_line()
            self._write(f"{text}\n")

    def begin(self, label: str) -> None:
        """Show that a step runs."""
        with self._lock:
            self._label = label
            self.step_begun = time.monotonic()
            self._next_log = self.step_begun + LOG_EVERY_S
            self._end_line()
            self._write(f"{label} ... ")
            self._line_open = True

    def done(self) -> None:
        """Show how long the current step took. A step that fails is not shown: its error is."""
        with self._lock:
            self._end_bar()
            took = duration(time.monotonic() - self.step_begun)
            self._write(f"{took}\n" if self._line_open else f"{self._label} ... {took}\n")
            self._line_open = False

    def stop(self) -> None:
        """End the bar and the open line, so that the terminal is as before."""
        with self._lock:
            self._end_line()

    def report(self, what: str, done: int, total: int, *, left: str = "") -> None:
        """Show how far the current step is: a bar on a terminal, a line every ten seconds in a log.

        Args:
            what: what runs.
            done: how much of it is done.
            total: how much there is; 0 if that is not known.
            left: how long the rest takes, for the log; the bar estimates it.
        """
        with self._lock:
            if self._terminal:
                self._draw(what, done, total)
            elif time.monotonic() >= self._next_log:
                self._next_log = time.monotonic() + LOG_EVERY_S
                share = f"{100 * done // total} %" if total else "started"
                self.note(", ".join(filter(None, (f"{self._label}: {what}", share, left))))

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console  # noqa: PLC0415  (only a long command on a terminal needs it)
            from rich.progress import Progress as Bar  # noqa: PLC0415

            self._end_line()
            self._bar = Bar(console=Console(file=self._stream), transient=True)
            self._bar.add_task(what, total=total or None, completed=done)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=total or None)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
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
