"""The reason of a failed trial in one line, from Ray's ``error.txt``."""

from __future__ import annotations

import re
from itertools import dropwhile, filterfalse
from pathlib import PurePath

__all__ = ["error_line"]

LONGEST = 300
"""Characters of a message that are kept: Ray explains a dead worker, CUDA a full memory, in a paragraph."""

_FAILURE = re.compile(r"^Failure # \d+ \(occurred at [^)\n]*\)\n", re.MULTILINE)
_FRAME = re.compile(r'^[ \t|]*File "(?P<file>[^"\n]+)", line (?P<line>\d+).*$', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOT_OURS = re.compile(r"(?:site|dist)-packages/|/lib(?:64)?/python3\.\d+/|/hpc_tune/runtime/|^<")
_RAY_OR_WE = re.compile(r"(?:site|dist)-packages/(?:ray|hpc_tune)/|/hpc_tune/runtime/|^<")


def error_line(text: str) -> str:
    """Return the last failure of an ``error.txt``, such as ``ValueError: lr too big (train.py:31)``.

    The place is the deepest frame in the user's own code; without one, the deepest outside Ray and hpc_tune.
    A message of several lines is joined and cut at `LONGEST` characters. Empty when the text says nothing.
    """
    last = _COLOUR.sub("", _FAILURE.split(text)[-1])
    frames = list(_FRAME.finditer(last))
    message = _raised(last[frames[-1].end() :]) if frames else _told(last)
    if len(message) > LONGEST:
        message = message[: LONGEST - 1].rstrip() + "…"
    place = _place([(frame["file"], frame["line"]) for frame in frames])
    return f"{message} ({place})" if message and place else message


def _raised(after: str) -> str:
    """Return the exception after the last frame, whose code and carets are indented."""
    return " ".join(" ".join(dropwhile(_is_indented, after.splitlines())).split())


def _told(text: str) -> str:
    """Return a message without a traceback; Ray indents a list of the dead actor's properties."""
    return " ".join(" ".join(filterfalse(_is_indented, text.splitlines())).split())


def _is_indented(line: str) -> bool:
    return not line or line[0].isspace()


def _place(frames: list[tuple[str, str]]) -> str:
    for passed_over in (_NOT_OURS, _RAY_OR_WE):
        for file, line in reversed(frames):
            if not passed_over.search(file):
                return f"{PurePath(file).name}:{line}"
    return ""
