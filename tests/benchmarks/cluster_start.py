"""How long a search over Slurm nodes takes to begin: hpc-tune, ``ray symmetric-run``, and Ray's Slurm guide.

Each contender is a job on a throw-away Slurm of small nodes, all of them on this machine, and runs the same trainable:
one short trial for each node, one at a time on a node. From the first line of the job script it is timed until Ray
has all nodes, and until Tune has the first report.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig

from hpc_tune.run import RunDir
from tests.benchmarks.harness import Contender, Row, Scenario
from tests.benchmarks.slurm_jobs import User

CPUS, GPUS = 2, 1  # of a node
MEMORY = 3000  # MB of a node
OBJECT_STORE = int(0.3 * MEMORY) * 2**20  # Ray's share, as hpc-tune reckons it
OURS = ("hpc-tune", "hpc-tune, all nodes")
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


class Bench:
    """A sandbox, a user on it, and the contenders."""

    def __init__(self, sandbox: Sandbox, folder: Path, nodes: int) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._nodes = nodes
        self._user = User(sandbox, folder, f'partition = "gpu"\ncpus_per_gpu = {CPUS}\n')

    def measure(self, contender: str) -> dict[str, float]:
        """Run one job and wait until it has left the nodes; count what slurmctld was asked but for our own asking."""
        before, self._user.asked = self._calls(), 0
        folder = Path(tempfile.mkdtemp(prefix=f"{contender}-", dir=self._folder))
        (folder / "train.py").write_text(TRAINABLE)
        (folder / "plain_tune.py").write_text(PLAIN_TUNE)
        try:
            job, measures = self._ours(contender, folder) if contender in OURS else self._peer(contender, folder)
            counted, asked = self._calls(), self._user.asked
            self._user.ask(job)
            one_question = self._calls()
            one_question.subtract(counted)
            counted.subtract(before)
            counted.subtract({name: count * asked for name, count in one_question.items()})
            return measures | {"calls": float((+counted).total())}
        finally:
            self._sandbox.wait_idle(120)
            shutil.rmtree(folder, ignore_errors=True)

    def _ours(self, contender: str, folder: Path) -> tuple[str, dict[str, float]]:
        nodes = self._nodes
        experiment = {
            "name": "bench", "trainable": "train.py:train", "metric": "score", "mode": "max", "num_samples": nodes,
            "space": {"x": {"uniform": [0, 1]}}, "trial": {"cpus": 1, "gpus": 1},
            "allocation": {"nodes": nodes, "min_nodes": nodes if contender == "hpc-tune, all nodes" else 1,
                           "gpus_per_node": GPUS, "cpus_per_node": CPUS},
        }  # fmt: skip
        (folder / "search.json").write_text(json.dumps(experiment))
        argv = [sys.executable, "-m", "hpc_tune", "submit", "search.json", "--runs-dir", str(folder / "runs"), "--json"]
        said = json.loads(self._user.run([*argv, "--time", "30m"], folder))
        run = RunDir(Path(said["path"]))
        self._user.wait_for_end(said["job_id"])
        [attempt] = run.attempts()
        outcome, record = attempt.outcome(), attempt.record()
        if outcome is None or record is None or outcome.ending != "completed":
            raise RuntimeError(f"it did not start: {outcome}")
        with (run.path / "trials.csv").open(newline="") as file:
            processes = {row["node"]: int(float(row["processes"])) for row in csv.DictReader(file)}
        reached = {name: when - record.started for name, when in record.phases.items()}
        return said["job_id"], _measures(reached["nodes_up"], reached["first_result"], processes)

    def _peer(self, contender: str, folder: Path) -> tuple[str, dict[str, float]]:
        how = {"symmetric-run": SYMMETRIC_RUN, "guide": GUIDE}[contender]
        path = shlex.quote(str(Path(sys.executable).parent))
        script = folder / "job.sbatch"
        script.write_text(PEER.format(nodes=self._nodes, cpus=CPUS, gpus=GPUS, path=path, how=how))
        job = self._user.run(["sbatch", "--parsable", script.name], folder).strip()
        self._user.wait_for_end(job)
        try:
            record = json.loads((folder / "record.json").read_text())
        except FileNotFoundError:
            raise RuntimeError(f"it did not start: {(folder / 'job.log').read_text()[-1500:]}") from None
        begun = float((folder / "begun").read_text())
        processes = {trial["node"]: trial["processes"] for trial in record["trials"]}
        return job, _measures(max(record["nodes"]) - begun, record["first_report"] - begun, processes)

    def _calls(self) -> Counter[str]:
        said = self._user.run(["sdiag"], Path("/"))
        listed = said.partition("by message type")[2].partition("by user")[0]
        found = re.findall(r"^\s+(\w+)\s.*?count:(\d+)", listed, re.MULTILINE)
        return Counter({name: int(count) for name, count in found if not BY_DAEMONS.match(name)})


def _measures(all_nodes: float, first_report: float, processes: Mapping[str, int]) -> dict[str, float]:
    """Return seconds from the first line of the script, and the processes of Python and Ray while trials run.

    That a node has joined ours notes when ``ray start`` says so; Ray's own table has it of the others, a bit earlier.
    """
    workers = [count for node, count in processes.items() if node != HEAD]
    head = {"processes_of_head": float(processes[HEAD])} if HEAD in processes else {}
    worker = {"processes_of_worker": float(max(workers))} if workers else {}
    return {"all_nodes": all_nodes, "first_report": first_report} | head | worker


@contextmanager
def prepare(folder: Path, nodes: int) -> Iterator[Mapping[str, Contender]]:
    """Yield the contenders, on a sandbox of their own."""
    config = SandboxConfig(
        state_dir=Path(f"/var/lib/hpc-tune-bench-{os.getpid()}"), cluster_name="bench", nodes=nodes, cpus=CPUS,
        gpus=GPUS, memory=MEMORY, shm=1024, tmp=1024,
    )  # fmt: skip
    with Sandbox(config) as sandbox:
        bench = Bench(sandbox, folder, nodes)
        yield {name: partial(bench.measure, name) for name in HOW}


HOW = {
    "hpc-tune": "`hpc-tune submit --nodes N`: trials start with the first node, others join",
    "hpc-tune, all nodes": "the same with `--min-nodes N`: trials wait for all nodes, as they do with symmetric-run",
    "symmetric-run": "one `srun` of `ray symmetric-run --min-nodes N -- python plain_tune.py` on all nodes",
    "guide": "`srun` of `ray start --head`, `sleep 10`; for each worker `srun` and `sleep 5`; then the script",
}
PROCESSES = (
    Row("calls to slurmctld", "hpc-tune", measure="calls", kind="value"),
    Row("calls to slurmctld", "guide", measure="calls", kind="value"),
    Row("processes of the head", "hpc-tune", measure="processes_of_head", kind="value"),
    Row("processes of a worker", "hpc-tune", measure="processes_of_worker", kind="value"),
    Row("processes of the head", "guide", measure="processes_of_head", kind="value"),
    Row("processes of a worker", "guide", measure="processes_of_worker", kind="value"),
)


def _scenario(nodes: int, *, rounds: int, minutes: float) -> Scenario:
    """Return the scenario of a cluster of some size; what is to be reached is said of four nodes."""
    beside_symmetric, beside_guide = (0.6, 0.35) if nodes == 4 else (None, None)
    return Scenario(
        name=f"cluster-start-{nodes}",
        about="a job on {nodes} small nodes of the throw-away Slurm, from its first line; as root",
        prepare=prepare,
        rows=(
            *(
                Row(f"job start to {reached}, nodes: {{nodes}}", "hpc-tune", peer, key, at_most=at_most)
                for reached, key in (("all nodes", "all_nodes"), ("first report", "first_report"))
                for peer, at_most in (("symmetric-run", beside_symmetric), ("guide", beside_guide))
            ),
            Row("the same", "hpc-tune, all nodes", "symmetric-run", "first_report"),
            *(PROCESSES if nodes == 4 else ()),
        ),
        how=HOW,
        size={"nodes": nodes},
        small={"nodes": 1},
        rounds=rounds,
        minutes=minutes,
    )


SCENARIOS = (
    _scenario(1, rounds=3, minutes=3),
    _scenario(4, rounds=3, minutes=7),
    _scenario(8, rounds=1, minutes=7),
    _scenario(16, rounds=1, minutes=7),
)
