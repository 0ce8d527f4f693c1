"""What lies in a run directory, how runs are found, and who may be at work in one."""

from __future__ import annotations

import errno
import getpass
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpc_tune import __version__
from hpc_tune.attempt import Outcome
from hpc_tune.errors import ExperimentError, RunBusy, RunError, RunNotFound
from hpc_tune.experiment.load import load_experiment
from hpc_tune.experiment.spec import changed_keys, spec_hash
from hpc_tune.operations.local import resume
from hpc_tune.run import SCHEMA, RunDir, find_run, list_runs


def all_paths(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------- creating


def test_a_run_holds_all_that_an_attempt_needs(project: Any, runs_dir: Path) -> None:
    path = project.json(space={"lr": {"uniform": [0, 1]}})
    before = time.time()
    run = RunDir.create(runs_dir, load_experiment(path, ["num_samples=2"]), overrides=["num_samples=2"], seed=7,
                        command=["hpc-tune", "run"])  # fmt: skip
    assert run.path.parent == runs_dir
    assert run.name.startswith("search-2")
    assert [str(path) for path in all_paths(run.path)] == [
        *("attempts", "code", "code/search.json", "code/train.py", "experiment.json", "run.json", "storage"),
    ]
    assert run.experiment_file.read_text() == path.read_text()
    record = run.record()
    assert set(record) == {
        *("schema", "name", "created", "user", "host", "command", "versions", "source", "experiment_file"),
        *("overrides", "seed", "spec", "spec_hash"),
    }
    assert record["schema"] == SCHEMA
    assert before <= record["created"] <= time.time()
    assert (record["user"], record["host"]) == (getpass.getuser(), socket.gethostname())
    assert (record["source"], record["command"]) == (str(path), ["hpc-tune", "run"])
    assert (record["overrides"], record["seed"], record["spec"]["num_samples"]) == (["num_samples=2"], 7, 2)
    assert record["spec_hash"] == spec_hash(record["spec"])
    assert record["versions"]["hpc-tune"] == __version__


def test_nobody_else_can_look_into_a_run(project: Any, runs_dir: Path) -> None:
    previous = os.umask(0)
    try:
        run = project.create_run(runs_dir)
        attempt = run.new_attempt()
    finally:
        os.umask(previous)
    for folder in (run.path, run.code, run.attempts_dir, run.storage, attempt.path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert stat.S_IMODE(run.record_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("suffix", ["toml", "json", "py"])
def test_a_run_is_loaded_again_from_what_it_keeps(project: Any, runs_dir: Path, suffix: str) -> None:
    """A resume reads the experiment from the run directory, in another process, perhaps after edits of the source."""
    project.write("lib_of_the_search.py", "def train(config): ...\n")
    texts = {
        "toml": 'name = "x"\ntrainable = "train.py:train"\nmetric = "m"\nmode = "max"\n',
        "json": json.dumps(project.spec()),
        "py": "from lib_of_the_search import train\nfrom hpc_tune import Experiment\n"
        "experiment = Experiment(name='x', trainable=train, metric='m', mode='max', space={'f': train})\n",
    }
    path = project.write(f"my_own_search.{suffix}", texts[suffix])
    run = RunDir.create(runs_dir, load_experiment(path), overrides=[], seed=1, command=[])
    shutil.rmtree(project.path)
    code = (
        "import sys, json; from pathlib import Path; from hpc_tune.run import RunDir;"
        "from hpc_tune.experiment.load import load_experiment; run = RunDir(Path(sys.argv[1]));"
        "print(json.dumps(load_experiment(run.experiment_file, [], folder=run.code).experiment.as_json()))"
    )
    again = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert changed_keys(run.record()["spec"], json.loads(again.stdout)) == []


@pytest.mark.parametrize("reference", ["../train.py:train", "../experiments/../train.py:train", "{absolute}:train"])
def test_a_trainable_outside_the_experiments_folder_is_refused(project: Any, reference: str) -> None:
    """The snapshot would not hold it."""
    spec = project.spec(trainable=reference.format(absolute=project.path / "train.py"))
    path = project.write("experiments/search.json", json.dumps(spec))
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path)
    (fault,) = caught.value.faults
    assert f"is not inside {path.parent}, the experiment's folder" in str(fault)
    assert "put the experiment file into the folder of the code" in str(fault)


def test_two_runs_of_one_second_get_two_names(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now() -> Any:
            from datetime import datetime

            return datetime(2026, 11, 22, 10, 15)

    monkeypatch.setattr("hpc_tune.run.datetime", Clock)
    names = [project.create_run(runs_dir).name for _ in range(3)]
    assert names == [f"search-20261122-101500{end}" for end in ("", "-2", "-3")]
    assert find_run(runs_dir, names[0]).name == names[0]


RACE = """
import sys, time
from pathlib import Path
from hpc_tune.experiment.load import load_experiment
from hpc_tune.run import RunDir
source, runs, go = map(Path, sys.argv[1:])
loaded = load_experiment(source)
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
for _ in range(5):
    print(RunDir.create(runs, loaded, overrides=[], seed=1, command=[]).name, flush=True)
"""


def test_racing_processes_get_runs_of_their_own(project: Any, runs_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(project.json()), str(runs_dir), str(tmp_path / "go")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    (tmp_path / "go").touch()
    names = [name for racer in racers for name in racer.communicate()[0].split()]
    assert len(set(names)) == len(names) == 15
    assert sorted(run.name for run in list_runs(runs_dir)) == sorted(names)
    assert all((run.code / "train.py").is_file() for run in list_runs(runs_dir))


@pytest.mark.parametrize("name", ["with spaces", 'it\'s "quoted" $HOME `x`', "ünï-日本", "new\nline"])
def test_a_runs_directory_may_have_any_name(project: Any, tmp_path: Path, name: str) -> None:
    run = project.create_run(tmp_path / name / "runs")
    assert find_run(tmp_path / name / "runs", None) == run
    assert load_experiment(run.experiment_file, [], folder=run.code).experiment.name == "search"
    with run.locked():
        assert run.lock.holder() is not None


def test_a_relative_runs_directory_becomes_absolute(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project.create_run(Path("here")).path.parent == tmp_path / "here"


def test_runs_below_the_experiment_are_not_copied_into_each_other(project: Any) -> None:
    for _ in range(2):
        run = project.create_run(project.path / "my own runs")
    assert sorted(path.name for path in run.code.iterdir()) == ["search.json", "train.py"]


def test_a_parent_that_is_a_file_is_refused_with_advice(project: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        project.create_run(tmp_path / "file" / "runs")
    assert caught.value.message == f"cannot create a run in {tmp_path}/file/runs: Not a directory"
    assert caught.value.hint == "choose another place with --runs-dir DIR or $HPC_TUNE_RUNS_DIR"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("place", ["snapshot.shutil.copy2", "run.shutil.copyfile", "run.write_json"])
def test_a_full_disk_leaves_nothing(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    monkeypatch.setattr(f"hpc_tune.{place}", full)
    with pytest.raises(RunError, match=r"cannot create a run in .*: No space left on device") as caught:
        project.create_run(runs_dir)
    assert "--runs-dir" in str(caught.value.hint)
    assert list(runs_dir.iterdir()) == []


def test_an_interrupt_leaves_nothing(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpc_tune.run.write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        project.create_run(runs_dir)
    assert list(runs_dir.iterdir()) == []


def test_a_user_without_a_name_gets_a_run(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container knows no name for the user's number."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert project.create_run(runs_dir).record()["user"] == str(os.getuid())


# ------------------------------------------------------------------------------- finding


@pytest.fixture
def three(project: Any, runs_dir: Path) -> list[RunDir]:
    """Three runs, oldest first: alpha-1, alpha-2, beta-1."""
    runs = []
    for age, name in ((30, "alpha-1"), (20, "alpha-2"), (10, "beta-1")):
        path = project.create_run(runs_dir).path.rename(runs_dir / name)
        os.utime(path / "run.json", (time.time() - age,) * 2)
        runs.append(RunDir(path))
    return runs


def test_runs_are_listed_oldest_first(three: list[RunDir], runs_dir: Path) -> None:
    assert list_runs(runs_dir) == three
    os.utime(three[0].record_file)
    assert list_runs(runs_dir) == [three[1], three[2], three[0]]


def test_what_is_no_run_is_not_listed(three: list[RunDir], runs_dir: Path) -> None:
    (runs_dir / "half-created").mkdir()
    (runs_dir / "a file").touch()
    assert list_runs(runs_dir) == three
    assert list_runs(runs_dir / "nowhere") == list_runs(runs_dir / "a file") == []


def test_a_neighbours_private_run_is_passed_over(three: list[RunDir], runs_dir: Path, tmp_path: Path) -> None:
    """Several users may share a runs directory; each run is closed to the others."""
    three[0].path.chmod(0)
    three[1].path.chmod(0o755)
    three[2].path.chmod(0o755)
    if os.geteuid() != 0:
        assert list_runs(runs_dir) == three[1:]
        return
    above = (tmp_path, *tmp_path.parents[:2])
    for folder in above:
        folder.chmod(0o711)
    code = "import os, sys; from hpc_tune.run import list_runs; from pathlib import Path; os.setuid(65534);"
    code += "print(*[run.name for run in list_runs(Path(sys.argv[1]))])"
    listed = subprocess.run([sys.executable, "-c", code, str(runs_dir)], capture_output=True, text=True, check=False)
    for folder in above:
        folder.chmod(0o700)
    assert (listed.stdout, listed.stderr) == ("alpha-2 beta-1\n", "")


@pytest.mark.parametrize(
    ("reference", "place"), [(None, 2), ("alpha-1", 0), ("alpha-2", 1), ("b", 2), ("beta", 2), ("{}/alpha-1", 0)]
)
def test_a_run_is_found(three: list[RunDir], runs_dir: Path, reference: str | None, place: int) -> None:
    assert find_run(runs_dir, reference and reference.format(runs_dir)) == three[place]


def test_a_relative_directory_is_a_reference(three: list[RunDir], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(three[0].path.parent)
    assert find_run(Path("elsewhere"), "./alpha-1/") == three[0]
    monkeypatch.chdir(three[0].path)
    assert find_run(Path("elsewhere"), ".") == three[0]


def test_a_whole_name_wins_over_longer_ones(three: list[RunDir], runs_dir: Path) -> None:
    three[2].path.rename(runs_dir / "alpha-1-2")
    assert find_run(runs_dir, "alpha-1") == three[0]


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("alpha", "'alpha' could be any of alpha-1, alpha-2", "type more of the name"),
        ("alhpa-1", "no run 'alhpa-1' in ", "did you mean 'alpha-1'?"),
        ("zzz", "no run 'zzz' in ", "known: alpha-1, alpha-2, beta-1"),
    ],
)
def test_a_wrong_name_is_answered(three: list[RunDir], runs_dir: Path, reference: str, message: str, hint: str) -> None:
    with pytest.raises(RunNotFound) as caught:
        find_run(runs_dir, reference)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("reference", [None, "x"])
def test_no_runs_at_all(runs_dir: Path, reference: str | None) -> None:
    with pytest.raises(RunNotFound, match="there are no runs in") as caught:
        find_run(runs_dir, reference)
    assert caught.value.hint == "start one with: hpc-tune run EXPERIMENT"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "x"}'])
def test_a_damaged_record_is_named(project: Any, runs_dir: Path, content: str) -> None:
    run = project.create_run(runs_dir)
    run.record_file.write_text(content)
    with pytest.raises(RunError, match=r"run\.json is missing or damaged"):
        run.record()


def test_a_record_of_a_newer_version_is_refused(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    record = run.record() | {"schema": SCHEMA + 1, "versions": {"hpc-tune": "9.9"}, "unheard_of": 1}
    run.record_file.write_text(json.dumps(record))
    with pytest.raises(RunError) as caught:
        run.record()
    assert caught.value.message == f"{run.path} was written by hpc_tune 9.9; this is {__version__}"


# ------------------------------------------------------------------------------- attempts


def test_racing_attempts_get_numbers_of_their_own(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    with ThreadPoolExecutor(16) as pool:
        attempts = list(pool.map(lambda _: run.new_attempt(), range(50)))
    assert sorted(attempt.number for attempt in attempts) == list(range(1, 51))
    assert [attempt.path.name for attempt in run.attempts()] == [f"{number:03d}" for number in range(1, 51)]


def test_a_gap_in_the_numbers_is_no_obstacle(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    for number in ("002", "003"):
        (run.attempts_dir / number).mkdir()
    (run.attempts_dir / "notes.txt").touch()
    assert run.new_attempt().number == 4
    assert [attempt.number for attempt in run.attempts()] == [2, 3, 4]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("completed", "all trials have ended"),
        Outcome("failed", 'say "ü"\nin two lines', exit_code=5, hint="see the log"),
        Outcome("interrupted", "", exit_code=0),
    ],
)
def test_an_outcome_is_read_as_it_was_written(project: Any, runs_dir: Path, outcome: Outcome) -> None:
    run = project.create_run(runs_dir)
    attempt = run.new_attempt()
    assert attempt.outcome() is None
    before = time.time()
    attempt.end(outcome)
    (again,) = run.attempts()
    found = again.outcome()
    assert found is not None
    assert before <= found.ended <= time.time()
    assert (found.ending, found.reason, found.exit_code, found.hint) == (
        *(outcome.ending, outcome.reason, outcome.exit_code, outcome.hint),
    )


def test_the_first_outcome_stands(project: Any, runs_dir: Path) -> None:
    attempt = project.create_run(runs_dir).new_attempt()
    attempt.end(Outcome("completed", "first"))
    written = attempt.outcome_file.read_bytes()
    attempt.end(Outcome("failed", "second"))
    assert attempt.outcome_file.read_bytes() == written


# ------------------------------------------------------------------------------- locks


HOLDER = """
import sys, time
from pathlib import Path
from hpc_tune.run import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(run: RunDir) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_a_live_holder_is_named(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    assert run.lock.holder() is None
    with held_elsewhere(run) as holder:
        who = f"process {holder.pid} on {socket.gethostname()}"
        assert run.lock.holder() == who
        with pytest.raises(RunBusy) as caught, run.locked():
            pytest.fail("two at work")
        assert caught.value.message == f"{run.name} is live: {who} is at work in it"
        assert caught.value.exit_code == 3
        with pytest.raises(RunBusy, match=who) as caught:
            resume(run)
        assert caught.value.hint == "wait for it, or end that process"
        assert run.attempts() == []
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(timeout=10)
        assert run.lock.holder() is None


def test_a_dead_holders_claim_is_broken(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    with held_elsewhere(run) as holder:
        holder.kill()
        holder.wait()
        for _ in range(2):
            with run.locked():
                assert run.lock.holder() == f"process {os.getpid()} on {socket.gethostname()}"
            assert run.lock.holder() is None


def test_a_dead_holder_that_nobody_has_reaped_is_dead(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    with held_elsewhere(run) as holder:
        holder.kill()
        deadline = time.monotonic() + 5
        while run.lock.holder() and time.monotonic() < deadline:
            time.sleep(0.01)
        with run.locked():
            pass


def test_a_claim_of_another_machine_is_respected(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project.create_run(runs_dir)
    host = socket.gethostname()
    with held_elsewhere(run) as holder:
        holder.kill()
        holder.wait()
        monkeypatch.setattr("hpc_tune.run.socket.gethostname", lambda: "another-machine")
        assert run.lock.holder() == f"process {holder.pid} on {host}"
        for _ in range(2):
            with pytest.raises(RunBusy, match=f"process {holder.pid} on {host}"), run.locked():
                pytest.fail("two at work")


def test_a_lock_is_let_go_when_its_holder_fails(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)

    def fail() -> None:
        with run.locked():
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    with run.locked():
        pass


def test_only_one_of_many_gets_the_lock(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    at_work: list[int] = []

    def work(number: int) -> bool:
        try:
            with run.locked():
                at_work.append(number)
                time.sleep(0.02)
                assert at_work == [number]
                at_work.remove(number)
        except RunBusy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(work, range(8)))
    assert any(got)
    with run.locked():
        pass
