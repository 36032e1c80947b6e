# SPDX-License-Identifier: MIT
"""What the demo prints: headings, wrapped sentences, tables. Plain text, 80 columns at most."""
import re
import shutil
import sys
import textwrap

_UNIT = re.compile(r"(?<=\d) (?=(?:[num]?s|[KMG]B)\b)")


class Screen:
    """Standard output; a line that is there while something is measured only on a terminal."""

    def __init__(self, stream=None):
        self._stream = sys.stdout if stream is None else stream
        self._terminal = self._stream.isatty()
        self._width = max(40, min(80, shutil.get_terminal_size().columns))
        self._busy = 0
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        try:
            "\N{RIGHTWARDS ARROW}".encode(encoding)
            self._arrow = "\N{RIGHTWARDS ARROW} "
        except (LookupError, UnicodeEncodeError):
            self._arrow = "-> "

    def _line(self, text=""):
        self.busy()
        self._stream.write(text + "\n")
        self._stream.flush()

    def _wrapped(self, text, first, rest):
        text = _UNIT.sub("\xa0", text)  # a line does not begin with one
        for line in textwrap.wrap(text, self._width, initial_indent=first, subsequent_indent=rest,
                                  break_on_hyphens=False):
            self._line(line.replace("\xa0", " "))

    def busy(self, what=""):
        """what is measured now; nothing: wipes it."""
        if self._terminal and (what or self._busy):
            padding = " " * (self._busy - len(what))
            self._stream.write("\r" + what + padding + "\r")
            self._stream.flush()
            self._busy = len(what)

    def heading(self, text):
        """A line with an empty one before it."""
        self._line()
        self._line(text)

    def say(self, text):
        """A paragraph, two columns in."""
        self._wrapped(text, "  ", "  ")

    def item(self, text):
        """One of a list."""
        self._wrapped(text, "  ", "    ")

    def verdict(self, text):
        """What the figures mean."""
        self._wrapped(text, "  " + self._arrow, " " * (2 + len(self._arrow)))

    def table(self, rows, head=None):
        """Rows of texts of equal length: the first column to the left, the others to the right."""
        rows = [[str(cell) for cell in row] for row in rows]
        all_rows = rows if head is None else [head, *rows]
        widths = [max(len(row[i]) for row in all_rows) for i in range(len(all_rows[0]))]
        for row in all_rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            self._line(("  " + "  ".join(cells)).rstrip())


def time_text(seconds):
    """3.14 ms"""
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def bytes_text(count):
    """3.1 MB"""
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20)):
        if count >= size:
            return f"{_digits(count / size)} {unit}"
    return f"{count / 1024:.0f} KB"


def times_text(ratio):
    """1.96x"""
    return f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def _digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
