"""A page as a browser shows it: Debian's chromium without a window."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")


@dataclass(frozen=True)
class Shown:
    """The page after its scripts have run."""

    dom: str
    console: list[str]
    """What they have said, and what went wrong."""

    @property
    def plots(self) -> dict[str, str]:
        """The content of each plot by its name."""
        parts = re.split(r'<div class="plot(?=[ "])', self.dom)[1:]
        named = (re.search(r'data-figure="([^"]+)"', part) for part in parts)
        contents = (part.partition("</section>")[0] for part in parts)
        return {html.unescape(name[1]): part for name, part in zip(named, contents, strict=True) if name}


def browser() -> str:
    """Return the browser's path; where it is missing skip the test, except in CI."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the Debian package chromium is missing")
    return CHROMIUM


def show(page: Path, profile: Path, *, width: int = 1280, dark: bool = False) -> Shown:
    """Open a page from the disk."""
    command = [
        browser(), "--headless", "--no-sandbox", f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader",  # parallel coordinates are drawn with WebGL
        f"--window-size={width},900", "--virtual-time-budget=60000", "--dump-dom",
    ]  # fmt: skip
    if dark:
        command.append("--blink-settings=preferredColorScheme=0")
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return Shown(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def check_drawn(shown: Shown, names: set[str]) -> None:
    """Assert that no script complained, and that each plot is there with something in it."""
    assert shown.console == []
    assert set(shown.plots) == names
    for name, content in shown.plots.items():
        assert 'data-drawn="yes"' in content, name
        if name == "parallel-coordinates":
            assert "<canvas" in content
            assert "WebGL is not supported" not in content
        else:
            assert re.search(r'<path [^>]*class="(js-line|point|box)|class="point"', content), name
