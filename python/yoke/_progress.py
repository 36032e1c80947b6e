# SPDX-License-Identifier: MIT
"""map(..., progress=True): a bar of tqdm's, or a plain line that is rewritten."""
import sys
import time

_EVERY_S = 0.1  # between two rewritings


def _bar(total, name):
    """A bar of tqdm's, or a Line."""
    try:
        if "ipykernel" in sys.modules:
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    except ImportError:
        return Line(total, name)
    return tqdm(total=total, desc=name, leave=True)


class Line:
    """A line on stderr, at most 10 times a second; where that is no terminal, once, at the end."""

    def __init__(self, total, name, stream=None):
        self.n = 0
        self._total = total
        self._name = name
        self._stream = sys.stderr if stream is None else stream
        self._began = time.monotonic()
        self._next = self._began
        self._width = 0
        try:
            self._terminal = self._stream.isatty()
        except (AttributeError, ValueError):
            self._terminal = False

    def update(self, count):
        """So many more are done."""
        self.n += count
        if self._terminal and time.monotonic() >= self._next:
            self._write("\r", self._text())
            self._next = time.monotonic() + _EVERY_S

    def _text(self):
        passed = max(time.monotonic() - self._began, 1e-9)
        of = f"/{self._total} ({100 * self.n // max(self._total, 1)} %)" if self._total else ""
        return f"{self._name}: {self.n}{of}, {passed:.1f} s, {self.n / passed:.4g}/s"

    def _write(self, before, text, after=""):
        padding = " " * (self._width - len(text))
        self._width = len(text)
        try:
            self._stream.write(before + text + padding + after)
            self._stream.flush()
        except (AttributeError, OSError, ValueError):
            self._terminal = False

    def close(self, complete=True):
        """The last line and a newline; or, when it was broken off, nothing that is left behind."""
        if complete:
            self._write("\r" if self._terminal else "", self._text(), "\n")
        elif self._terminal:
            self._write("\r", "", "\r")


class Progress:
    """An iterator over a map that shows how far it is."""

    def __init__(self, results, total, name):
        self._results = results
        self._bar = _bar(total, name)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            value = next(self._results)
        except StopIteration:
            self._show()
            self._end(True)
            raise
        except (KeyboardInterrupt, SystemExit):
            self._end(False)
            raise
        except BaseException:  # an item's; the iterator goes on
            self._show()
            raise
        self._show()
        return value

    def __length_hint__(self):
        return self._results.__length_hint__()

    @property
    def done(self):
        """How many calls have ended."""
        return self._results.done

    def _show(self):
        bar = self._bar
        if bar is not None and (more := self._results.done - bar.n) > 0:
            bar.update(more)

    def _end(self, complete):
        bar, self._bar = self._bar, None
        if isinstance(bar, Line):
            bar.close(complete)
        elif bar is not None:
            bar.leave = complete
            bar.close()

    def close(self):
        """Cancel what has not begun."""
        self._end(False)
        self._results.close()

    def __del__(self):
        if getattr(self, "_bar", None) is not None:
            self.close()
