"""How long a search over Slurm nodes takes to begin: hpc-tune, ``ray symmetric-run``, and Ray's Slurm guide.

Each contender is a job on a throw-away Slurm of small nodes, all of them on this machine, and runs the same trainable:
one short trial for each node, one at a time on a node. From the first line of the job script it is timed until Ray
has all nodes, and until Tune has the first report. The contenders take turns; a ratio compares two of one round.

    python tests/benchmarks/cluster_start.py [--nodes 1,4,8,16] [--rounds N] [--only hpc-tune guide] [--json FILE]

As root, with the packages of ``make sandbox``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from statistics import median

from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig, SandboxUnavailableError

from hpc_tune.run import RunDir

CPUS, GPUS = 2, 1  # of a node
MEMORY = 3000  # MB of a node
OBJECT_STORE = int(0.3 * MEMORY) * 2**20  # Ray's share, as hpc-tune reckons it
PATIENCE = 600.0  # seconds that a job may take
OURS = ("hpc-tune", "hpc-tune-quorum")
HEAD = "bench-169"
BY_DAEMONS = re.compile("MESSAGE_|REQUEST_COMPLETE_|REQUEST_STEP_COMPLETE|REQUEST_STATS_INFO")
"""What slurmd tells slurmctld of its own accord, and the question itself."""

TRAINABLE = """\
import os, time
from pathlib import Path
from ray import tune

def processes():
    \"\"\"Count the Python and Ray processes of this node.\"\"\"
    names = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            names.append(os.path.basename(os.readlink(entry / "exe")))
        except OSError:
            pass  # it has ended
    return sum(name.startswith(("python", "raylet", "gcs_server")) for name in names)

def train(config):
    time.sleep(0.1)
    tune.report({"score": config["x"], "node": "", "processes": 0})
    time.sleep(5)  # until all nodes have a trial; nothing is timed any more
    tune.report({"score": config["x"], "node": os.uname().nodename, "processes": processes()})
"""
PLAIN_TUNE = """\
import json, os, sys, time
import ray
from ray import tune
from ray._raylet import GcsClient
from train import train

class Clock(tune.Callback):
    first_report = None

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.first_report = self.first_report or time.time()

clock = Clock()
nodes = int(sys.argv[1])
ray.init()
results = tune.Tuner(
    tune.with_resources(train, {"cpu": 1, "gpu": 1}),
    param_space={"x": tune.uniform(0, 1)},
    tune_config=tune.TuneConfig(metric="score", mode="max", num_samples=nodes),
    run_config=tune.RunConfig(storage_path=os.getcwd() + "/results", callbacks=[clock], verbose=0),
).fit()
known = GcsClient(address=ray.get_runtime_context().gcs_address).get_all_node_info(timeout=10).values()
record = {
    "nodes": [node.start_time_ms / 1000 for node in known],
    "first_report": clock.first_report,
    "trials": [result.metrics for result in results],
}
with open("record.json", "w") as file:
    json.dump(record, file, default=str)
"""
PEER = """\
#!/bin/bash
#SBATCH --nodes={nodes} --ntasks-per-node=1 --cpus-per-task={cpus} --gres=gpu:{gpus} --time=30 --output=job.log
date +%s.%N >begun
export PATH={path}:"$PATH" RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
{how}
"""
SIZE = f"--num-cpus {CPUS} --num-gpus {GPUS} --object-store-memory {OBJECT_STORE}"
SYMMETRIC_RUN = f"""\
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
srun --cpus-per-task={CPUS} --cpu-bind=none \\
    ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" {SIZE} \\
    -- python plain_tune.py "$SLURM_JOB_NUM_NODES"
"""
GUIDE = f"""\
ip=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address)
srun --nodes=1 --ntasks=1 -w "$head" --cpu-bind=none \\
    ray start --head --node-ip-address="$ip" --port=6379 {SIZE} --block &
sleep 10
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n +2); do
    srun --nodes=1 --ntasks=1 -w "$node" --cpu-bind=none \\
        ray start --address "$ip:6379" {SIZE} --block &
    sleep 5
done
RAY_ADDRESS="$ip:6379" python -u plain_tune.py "$SLURM_JOB_NUM_NODES"
"""
HOW = {
    "hpc-tune": "`hpc-tune submit --nodes N`: trials start with the first node, others join",
    "hpc-tune-quorum": "the same with `--min-nodes N`: trials wait for all nodes, as they do with symmetric-run",
    "symmetric-run": "one `srun` of `ray symmetric-run --min-nodes N -- python plain_tune.py` on all nodes",
    "guide": "`srun` of `ray start --head`, `sleep 10`; for each worker `srun` and `sleep 5`; then the script",
}


class NotStarted(Exception):
    """A contender's job came to no report."""


@dataclass
class Start:
    """How one job began; times are in seconds from the first line of its script."""

    contender: str
    nodes: int
    all_nodes: float
    """Ours notes it when ``ray start`` says so; for the others it is the time that Ray's own table has, before that."""
    first_report: float
    processes: dict[str, int]
    """Python and Ray processes while trials run, by node."""
    phases: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    """What commands, those in the job included, asked of slurmctld."""
    round: int = 0


class Bench:
    """A sandbox, a user's home on it, and the contenders."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._asked = 0
        self._job = ""
        home = folder / "home"
        sites = home / ".config/hpc-tune/sites"
        sites.mkdir(parents=True)
        (sites / "bench.toml").write_text(f'cluster_names = ["bench"]\npartition = "gpu"\ncpus_per_gpu = {CPUS}\n')
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self._environment = {**kept, "HOME": str(home), "LANG": "C.UTF-8", **sandbox.env()}
        for name, text in (("train.py", TRAINABLE), ("plain_tune.py", PLAIN_TUNE)):
            (folder / name).write_text(text)

    def measure(self, contender: str, nodes: int) -> Start:
        """Run one job and wait until it has left the nodes."""
        before, self._asked = self._calls(), 0
        folder = Path(tempfile.mkdtemp(prefix=f"{contender}-{nodes}-", dir=self._folder))
        for name in ("train.py", "plain_tune.py"):
            shutil.copy(self._folder / name, folder)
        start = self._ours(contender, folder, nodes) if contender in OURS else self._peer(contender, folder, nodes)
        counted, asked = self._calls(), self._asked
        self._ask(self._job)
        one_question = self._calls()
        one_question.subtract(counted)
        counted.subtract(before)
        counted.subtract({name: count * asked for name, count in one_question.items()})
        start.calls = dict(sorted((+counted).items()))
        self._sandbox.wait_idle(120)
        return start

    def _ours(self, contender: str, folder: Path, nodes: int) -> Start:
        quorum = nodes if contender == "hpc-tune-quorum" else 1
        experiment = {
            "name": "bench", "trainable": "train.py:train", "metric": "score", "mode": "max", "num_samples": nodes,
            "space": {"x": {"uniform": [0, 1]}}, "trial": {"cpus": 1, "gpus": 1},
            "allocation": {"nodes": nodes, "min_nodes": quorum, "gpus_per_node": GPUS, "cpus_per_node": CPUS},
        }  # fmt: skip
        (folder / "search.json").write_text(json.dumps(experiment))
        argv = [sys.executable, "-m", "hpc_tune", "submit", "search.json", "--runs-dir", str(folder / "runs"), "--json"]
        said = json.loads(self._run([*argv, "--time", "30m"], folder))
        run = RunDir(Path(said["path"]))
        self._wait_for_end(said["job_id"])
        [attempt] = run.attempts()
        if (outcome := attempt.outcome()) is None or outcome.ending != "completed":
            raise NotStarted(str(outcome))
        record = attempt.record()
        with (run.path / "trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        phases = {name: when - record.started for name, when in record.phases.items()}
        for node in attempt.nodes():
            phases[f"agent {node.rank}"] = node.started - record.started
            phases[f"up {node.rank}"] = node.up - record.started
        processes = {row["node"]: int(float(row["processes"])) for row in rows}
        in_order = dict(sorted(phases.items(), key=lambda phase: phase[1]))
        return Start(contender, nodes, phases["nodes_up"], phases["first_result"], processes, in_order)

    def _peer(self, contender: str, folder: Path, nodes: int) -> Start:
        how = {"symmetric-run": SYMMETRIC_RUN, "guide": GUIDE}[contender]
        path = shlex.quote(str(Path(sys.executable).parent))
        script = folder / "job.sbatch"
        script.write_text(PEER.format(nodes=nodes, cpus=CPUS, gpus=GPUS, path=path, how=how))
        job = self._run(["sbatch", "--parsable", script.name], folder).strip()
        self._wait_for_end(job)
        try:
            record = json.loads((folder / "record.json").read_text())
        except FileNotFoundError:
            raise NotStarted((folder / "job.log").read_text()[-2000:]) from None
        begun = float((folder / "begun").read_text())
        processes = {trial["node"]: trial["processes"] for trial in record["trials"]}
        return Start(contender, nodes, max(record["nodes"]) - begun, record["first_report"] - begun, processes)

    def _run(self, argv: list[str], folder: Path) -> str:
        done = subprocess.run(argv, cwd=folder, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _wait_for_end(self, job: str) -> None:
        """Ask slurmctld once a second."""
        self._job = job
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._ask(job) in ("COMPLETED", "CANCELLED", "FAILED"):
                return
            time.sleep(1)
        raise SystemExit(f"job {job} has not ended after {PATIENCE:.0f} s")

    def _ask(self, job: str) -> str:
        self._asked += 1
        return self._run(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"], Path("/")).strip()

    def _calls(self) -> Counter[str]:
        said = self._run(["sdiag"], Path("/"))
        listed = said.partition("by message type")[2].partition("by user")[0]
        found = re.findall(r"^\s+(\w+)\s.*?count:(\d+)", listed, re.MULTILINE)
        return Counter({name: int(count) for name, count in found if not BY_DAEMONS.match(name)})


def measured(nodes: int, contenders: list[str], rounds: int) -> Iterator[Start]:
    """Yield how each contender began, round by round, on a sandbox of its own."""
    state_dir = Path(f"/var/lib/hpc-tune-bench-{os.getpid()}")
    config = SandboxConfig(
        state_dir=state_dir, cluster_name="bench", nodes=nodes, cpus=CPUS, gpus=GPUS, memory=MEMORY, shm=1024, tmp=1024
    )
    folder = Path(tempfile.mkdtemp(prefix="hpc-tune-bench-", dir="/var/tmp"))  # all nodes see it, unlike /tmp
    try:
        with Sandbox(config) as sandbox:
            bench = Bench(sandbox, folder)
            for number in range(1, rounds + 1):
                for contender in contenders:
                    try:
                        start = bench.measure(contender, nodes)
                    except NotStarted as why:
                        print(f"{nodes} nodes, round {number}, {contender} did not start: {why}", file=sys.stderr)
                        sandbox.wait_idle(120)
                        continue
                    start.round = number
                    load = os.getloadavg()[0]
                    print(
                        f"{nodes} nodes, round {number}, {contender}: all nodes {start.all_nodes:.1f} s, "
                        f"first report {start.first_report:.1f} s (load {load:.1f})",
                        *(f"    {name} {seconds:.2f}" for name, seconds in start.phases.items()),
                        sep="\n", file=sys.stderr, flush=True,
                    )  # fmt: skip
                    yield start
    finally:
        shutil.rmtree(folder)


def ratios(ours: list[Start], theirs: list[Start], key: str) -> list[float]:
    """Return the ratio of each round in which both have started."""
    other = {each.round: getattr(each, key) for each in theirs}
    return [getattr(each, key) / other[each.round] for each in ours if each.round in other]


def table(starts: list[Start], nodes: list[int], contenders: list[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| nodes | job start to | | s | beside | s | ratio | min to max |"
    yield "| ---: | --- | --- | ---: | --- | ---: | ---: | ---: |"
    ours = [name for name in contenders if name in OURS]
    peers = [name for name in contenders if name not in OURS]
    for count, (key, what) in product(nodes, (("all_nodes", "all nodes"), ("first_report", "first report"))):
        of = {name: [each for each in starts if (each.contender, each.nodes) == (name, count)] for name in contenders}
        took = {name: median(getattr(each, key) for each in of[name]) for name in contenders if of[name]}
        for own, peer in product(ours, peers):
            if not (found := ratios(of[own], of[peer], key)):
                yield f"| {count} | {what} | {own} | | {peer} | never started | | |"
                continue
            yield (
                f"| {count} | {what} | {own} | {took[own]:.1f} | {peer} | {took[peer]:.1f} "
                f"| {median(found):.2f} | {min(found):.2f} to {max(found):.2f} |"
            )


def counts(starts: list[Start], nodes: list[int], contenders: list[str]) -> Iterator[str]:
    """Yield the lines of a table of what does not depend on the machine's mood."""
    yield "| nodes | | processes of the head | of a worker | calls to slurmctld |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    for count in nodes:
        for name in contenders:
            of = [each for each in starts if (each.contender, each.nodes) == (name, count)]
            heads = [each.processes[HEAD] for each in of if HEAD in each.processes]
            others = [number for each in of for node, number in each.processes.items() if node != HEAD]
            asked = median(sum(each.calls.values()) for each in of) if of else math.nan
            yield (f"| {count} | {name} | {max(heads, default='')} | {max(others, default='')} | {asked:.0f} |")


def main() -> None:
    """Measure the contenders and print two tables."""
    parser = argparse.ArgumentParser(description="Time how a search over Slurm nodes begins, in three ways.")
    parser.add_argument("--nodes", default="4", metavar="N,N", help="how many nodes; several: one after another")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=HOW, default=list(HOW))
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all that was measured")
    arguments = parser.parse_args()
    nodes = [int(each) for each in arguments.nodes.split(",")]
    contenders = [name for name in HOW if name in arguments.only]
    try:
        starts = [start for count in nodes for start in measured(count, contenders, arguments.rounds)]
    except SandboxUnavailableError as reason:
        raise SystemExit(f"no Slurm to measure on: {reason}") from None
    print(f"{date.today()}, median of {arguments.rounds} rounds on {os.cpu_count()} cores\n")
    print(*table(starts, nodes, contenders), sep="\n", end="\n\n")
    print(*counts(starts, nodes, contenders), sep="\n", end="\n\n")
    print(*(f"- {name}: {HOW[name]}" for name in contenders), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(start) for start in starts], indent=1) + "\n")


if __name__ == "__main__":
    main()
