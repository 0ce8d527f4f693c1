"""The snapshot of an experiment's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_tune import snapshot
from hpc_tune.errors import RunError
from hpc_tune.snapshot import take_snapshot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / 'a folder\'s "näme"'
    folder.mkdir()
    return folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def copied(source: Path, tmp_path: Path) -> set[str]:
    target = tmp_path / "code"
    target.mkdir()
    take_snapshot(source, target)
    return {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}


def test_what_belongs_to_the_experiment_is_copied(source: Path, tmp_path: Path) -> None:
    names = {"train.py", "search.toml", "lib/inner/a b.py", "lib/ünï.txt", ".hidden_file", "data/x.csv", "no_suffix"}
    write(source, *names)
    assert copied(source, tmp_path) == names
    assert (tmp_path / "code" / "lib" / "inner" / "a b.py").read_text() == "lib/inner/a b.py"


def test_what_does_not_belong_is_left_out(source: Path, tmp_path: Path) -> None:
    write(source, "train.py", ".git/config", ".venv/lib.py", "__pycache__/x.pyc", "lib/__pycache__/y.txt", "z.pyc")
    write(source, "venv/x.py", "node_modules/x.js", "runs/old/code/x.py", "my_pkg.egg-info/PKG-INFO")
    write(source, "myenv/pyvenv.cfg", "myenv/lib/x.py", "results/run-1/run.json", "results/run-1/code/train.py")
    assert copied(source, tmp_path) == {"train.py"}


def test_edits_after_the_snapshot_change_nothing(source: Path, tmp_path: Path) -> None:
    write(source, "train.py")
    copied(source, tmp_path)
    (source / "train.py").write_text("edited")
    assert (tmp_path / "code" / "train.py").read_text() == "train.py"


def test_large_files_are_linked_to_where_they_are(source: Path, tmp_path: Path) -> None:
    for name, size in (("large.bin", snapshot.LINKED_ABOVE + 1), ("small.bin", snapshot.LINKED_ABOVE)):
        with (source / name).open("wb") as file:
            file.truncate(size)
    assert copied(source, tmp_path) == {"large.bin", "small.bin"}
    assert (tmp_path / "code" / "large.bin").readlink() == (source / "large.bin").resolve()
    assert not (tmp_path / "code" / "small.bin").is_symlink()


def test_a_linked_file_is_copied_and_a_dangling_link_is_left_out(source: Path, tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/lib.py")
    (source / "lib.py").symlink_to(tmp_path / "elsewhere" / "lib.py")
    (source / "dangling.py").symlink_to(tmp_path / "nowhere")
    assert copied(source, tmp_path) == {"lib.py"}
    assert not (tmp_path / "code" / "lib.py").is_symlink()


def test_a_linked_folder_is_linked_to_where_it_is(source: Path, tmp_path: Path) -> None:
    """``data -> /scratch/data`` beside ``train.py`` is common on clusters."""
    write(tmp_path, "scratch/data/x.csv")
    write(source, "train.py")
    (source / "data").symlink_to("../scratch/data")
    copied(source, tmp_path)
    assert (tmp_path / "code" / "data" / "x.csv").read_text() == "scratch/data/x.csv"
    assert (tmp_path / "code" / "data").is_symlink()


def test_a_folder_that_is_linked_into_itself_ends(source: Path, tmp_path: Path) -> None:
    write(source, "train.py")
    (source / "again").symlink_to(source)
    assert "train.py" in copied(source, tmp_path)


def test_pipes_and_sockets_are_left_out(source: Path, tmp_path: Path) -> None:
    write(source, "train.py")
    os.mkfifo(source / "pipe")
    assert copied(source, tmp_path) == {"train.py"}


def test_too_many_files_are_no_code(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_FILES", 3)
    write(source, "a", "b", "c")
    assert len(copied(source, tmp_path)) == 3
    write(source, "d")
    (tmp_path / "second").mkdir()
    with pytest.raises(RunError) as caught:
        take_snapshot(source, tmp_path / "second")
    assert caught.value.message.startswith(f"{source} holds more than 3 files")
    assert caught.value.hint == "put the experiment file and the code that it uses into a folder of their own"
    assert list((tmp_path / "second").iterdir()) == []
