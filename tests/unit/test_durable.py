"""Files that are never half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.durable import read_json, replacing, write_json, write_text
from hpc_tune.progress import Best, Curve, Progress, improves


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "a file.json"
    path.write_text("old")
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_new_file_takes_the_place_of_the_old(old: Path) -> None:
    with replacing(old) as file:
        file.write(b"new")
        file.flush()
        assert old.read_text() == "old"
        (beside,) = set(old.parent.iterdir()) - {old}
        assert beside.name.startswith(".")
        assert beside.name.endswith(".tmp")
        assert beside.stat().st_mode & 0o777 == 0o600
    assert old.read_text() == "new"
    assert list(old.parent.iterdir()) == [old]


class Stop(BaseException):
    """Like an interrupt."""


@pytest.mark.parametrize("error", [OSError("full"), ValueError("wrong"), Stop()])
def test_the_old_file_stays_when_the_block_fails(old: Path, error: BaseException) -> None:
    def write() -> None:
        with replacing(old) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_the_old_file_stays_when_the_system_refuses(old: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"hpc_tune.durable.os.{call}", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_text(old, "new")
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_the_old_file_stays_when_the_disk_is_full(small_disk: Path) -> None:
    path = small_disk / "progress.json"
    write_json(path, {"a": 1})
    for text in ("x" * 10**6, "y" * 10**6):
        with pytest.raises(OSError, match="No space left") as caught:
            write_json(path, {"a": text})
        assert caught.value.errno == errno.ENOSPC
    assert read_json(path) == {"a": 1}
    assert list(small_disk.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o700])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    previous = os.umask(0o077)
    try:
        write_text(tmp_path / "file", "x", mode=mode)
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_json_is_private_unless_told_otherwise(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {})
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (1, 10**5, 10):
        write_json(path, {"x": "y" * size})
        assert len(json.loads(path.read_text())["x"]) == size


@pytest.mark.parametrize("value", [{"ü": "日本", "quote": '"', "n": [1, 2.5, None, True]}, {}])
def test_what_is_written_is_read(tmp_path: Path, value: dict[str, Any]) -> None:
    write_json(tmp_path / "file", value)
    assert read_json(tmp_path / "file") == value


def test_a_file_name_that_is_no_unicode_is_kept(tmp_path: Path) -> None:
    command = [os.fsdecode(b"caf\xe9.toml")]
    write_json(tmp_path / "file", {"command": command})
    assert read_json(tmp_path / "file") == {"command": command}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"null", b'"x"', b"\xff\xfe", b"\x00" * 20])
def test_what_is_not_a_whole_object_is_not_there_yet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_json(tmp_path / "file") is None


def test_a_missing_file_or_folder_is_not_there_yet(old: Path) -> None:
    assert read_json(old.parent / "no" / "file") is None
    assert read_json(old / "below a file") is None


# ------------------------------------------------------------------------------- progress


@pytest.mark.parametrize(
    "progress",
    [
        Progress("starting"),
        Progress(
            "running",
            total=4,
            states={"RUNNING": 2},
            slots=2,
            iterations=7,
            best=Best("a_1", 0.5, 3, {"lr": 0.1, "deep": {"x": [1]}}),
            curve=(0.25, 0.5),
            curve_step=2,
            eta_seconds=3.5,
            elapsed=9.0,
            notes=("on CPUs",),
        ),
    ],
)
def test_progress_is_read_as_it_was_written(tmp_path: Path, progress: Progress) -> None:
    progress.write(tmp_path / "progress.json")
    assert Progress.read(tmp_path / "progress.json") == progress


def test_a_long_curve_grows_coarser_instead_of_longer() -> None:
    curve = Curve()
    for value in range(1, 1001):
        curve.add(value)
    assert curve.points == list(range(16, 1001, 16))
    assert curve.step == 16


def test_no_progress_yet(tmp_path: Path) -> None:
    assert Progress.read(tmp_path / "progress.json") is None
    (tmp_path / "progress.json").write_text('{"phase": "runn')
    assert Progress.read(tmp_path / "progress.json") is None


@pytest.mark.parametrize(
    ("value", "best", "mode", "expected"),
    [
        (1, None, "max", True),
        (2, 1, "max", True),
        (1, 1, "max", False),
        (0, 1, "max", False),
        (0, 1, "min", True),
        (2, 1, "min", False),
        (float("nan"), None, "max", False),
        (float("nan"), 1, "min", False),
    ],
)
def test_what_beats_the_best(value: float, best: float | None, mode: str, expected: bool) -> None:
    assert improves(value, best, mode) is expected
