"""What is left of a search whose state is damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hpc_tune.errors import RunError
from hpc_tune.runtime.snapshots import PREVIOUS_STATE_FILE, STATE_FILE, begin_anew, saved_state, set_aside_unknown


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    path = tmp_path / "storage"
    for trial in ("first", "second"):
        (path / trial).mkdir(parents=True)
        (path / trial / "params.json").write_text("{}")
    return path


def save(path: Path, *, damaged: bool = False) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("experiment_state-1.json", "{}" * 1000)
    if damaged:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)


def trials(storage: Path) -> list[str]:
    return sorted(each.parent.name for each in storage.glob("*/params.json"))


def test_the_newest_state_that_is_whole_counts(storage: Path) -> None:
    assert saved_state(storage) is None
    save(storage / PREVIOUS_STATE_FILE)
    save(storage / STATE_FILE)
    assert saved_state(storage) == storage / STATE_FILE
    save(storage / STATE_FILE, damaged=True)
    assert saved_state(storage) == storage / PREVIOUS_STATE_FILE
    save(storage / PREVIOUS_STATE_FILE, damaged=True)
    assert saved_state(storage) is None


def test_trials_that_no_state_knows_are_kept_aside(storage: Path) -> None:
    set_aside_unknown(storage, known={"first"})
    assert trials(storage) == ["first"]
    (aside,) = (storage.parent / "set_aside").iterdir()
    assert aside.name.startswith("second-")
    assert (aside / "params.json").exists()


def test_a_search_whose_only_state_is_damaged_begins_anew(storage: Path) -> None:
    save(storage / STATE_FILE, damaged=True)
    (note,) = begin_anew(storage)
    assert note == "the search has no whole state on disk: it began anew; what was left of 2 trials is in set_aside/"
    assert trials(storage) == []
    assert begin_anew(storage) == []


def test_a_search_that_was_far_is_not_begun_anew(storage: Path) -> None:
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        save(storage / name, damaged=True)
    with pytest.raises(RunError, match=r"state\.zip, and state\.prev\.zip") as caught:
        begin_anew(storage)
    assert "copy" in str(caught.value.hint)
    assert trials(storage) == ["first", "second"]
