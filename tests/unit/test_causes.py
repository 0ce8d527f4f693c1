"""Each known failure is recognized in what programs really say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc_tune.operations.causes import RULES, Evidence, causes

RUN = Path("/scratch/ada/runs/search-1")

SAID = {
    "metric missing": """\
2026-11-24 10:03:12,411\tERROR tune_controller.py:1331 -- Trial task failed for trial train_2f1c0_00000
ValueError: Trial returned a result which did not include the specified metric(s) `accuracy` that `tune.TuneConfig()` \
expects. Make sure your calls to `tune.report()` include the metric, or set the TUNE_DISABLE_STRICT_METRIC_CHECKING \
environment variable to 1. Result: {'acc': 0.5, 'training_iteration': 1}""",
    "cuda out of memory": """\
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of \
which 1.21 GiB is free. Including non-PyTorch memory, this process has 14.55 GiB memory in use. (train.py:41)""",
    "cuda not compiled in": "AssertionError: Torch not compiled with CUDA enabled (train.py:22)",
    "cuda missing": "RuntimeError: No CUDA GPUs are available (train.py:22)",
    "cuda mismatch": """\
RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver""",
    "ray missing": """\
10:03:12 Ray ended at its start (1 of 3): ModuleNotFoundError: No module named 'ray'
/usr/bin/python3: Error while finding module specification for 'hpc_tune.runtime.node' \
(ModuleNotFoundError: No module named 'hpc_tune')""",
    "environment missing": """\
/var/spool/slurmd/job4711/slurm_script: line 21: /home/ada/venvs/search/bin/activate: No such file or directory""",
    "version mismatch": """\
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
This process on node 10.77.0.12 was started with:
    Ray: 2.9.3
    Python: 3.11.7""",
    "disk full": "OSError: [Errno 28] No space left on device: '/scratch/ada/runs/search-1/storage/.state.zip.x1.tmp'",
    "quota": "OSError: [Errno 122] Disk quota exceeded: '/scratch/ada/runs/search-1/storage/2f1c0_00003'",
    "temp dir full": "10:03:12 /tmp has 20 MB free; Ray needs 100 MB",
    "temp dir filling": """\
[2026-11-24 10:03:12,411 E 4711 4725] (raylet) file_system_monitor.cc:116: /tmp/hpc-tune-a1/session_2026 is over 95% \
full, available space: 0.8 GB; capacity: 1 GB. Object creation will fail if spilling is required.""",
    "socket path": """\
OSError: validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: \
/scratch/users/ada/a/very/long/path/for/temporary/files/ray/session_2026-11-24/sockets/plasma_store""",
    "token": """\
[2026-11-24 10:03:12,411 E 4711 4711] (raylet) gcs_client.cc: RPC error: InvalidAuthToken: Authentication token is \
missing or incorrect""",
    "proxy": """\
failed to connect to all addresses; last error: UNKNOWN: ipv4:10.1.0.5:3128: HTTP proxy returned response code 403""",
    "interface": "the network interface 'ib9' has no IPv4 address; this node has lo, eth0; set interface",
    "no route": """\
[2026-11-24 10:03:12,411 W 4711 4711] gcs_rpc_client.h:151: Failed to connect to GCS at address 192.0.2.7:21000 \
within 5 seconds: No route to host""",
    "port taken": """\
[2026-11-24 10:03:12,411 C 4711 4711] (gcs_server) grpc_server.cc:134:  Check failed: server_ Failed to start the grpc \
server. The specified port is 21000. Address already in use""",
    "ray out of memory": """\
ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.
Memory on the node (IP: 10.77.0.12, ID: 5f) where the task (actor ID: 9a, name=ImplicitFunc.__init__) was running was \
118.46GB / 124.00GB (0.955), which exceeds the memory usage threshold of 0.95.""",
    "slurm out of memory": """\
slurmstepd: error: Detected 3 oom_kill events in StepId=4711.0. Some of the step tasks have been OOM Killed.""",
    "out of memory": """\
numpy._core._exceptions._ArrayMemoryError: Unable to allocate 74.5 GiB for an array with shape (100000, 100000)""",
    "shared memory": """\
RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers \
are out of shared memory. Please try to raise your shared memory limit.""",
    "open files": "OSError: [Errno 24] Too many open files: '/scratch/ada/data/shard-0912.npz' (train.py:18)",
    "threads": """\
OpenBLAS blas_thread_init: pthread_create failed for thread 13 of 28: Resource temporarily unavailable
OpenBLAS blas_thread_init: RLIMIT_NPROC 1024 current, 4096 max""",
    "workers register": """\
(raylet) worker_pool.cc:588: Some workers of the worker process(4711) have not registered within the timeout. The \
process is still alive, probably it's hanging during start.""",
    "resources": """\
(autoscaler) Error: No available node types can fulfill resource request {'CPU': 7.0, 'GPU': 2.0}.""",
    "refused": """\
sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified""",
    "short walltime": "attempt 2 reached its walltime after 2 min 00 s without a result",
    "preempted": "slurmstepd: error: *** JOB 4711 ON iris-169 CANCELLED AT 2026-11-24T10:03:12 DUE TO PREEMPTION ***",
    "node failure": "slurmstepd: error: *** STEP 4711.0 ON iris-170 CANCELLED AT 2026-11-24T10:03 DUE TO NODE FAILURE",
    "time limit": "slurmstepd: error: *** JOB 4711 ON iris-169 CANCELLED AT 2026-11-24T10:03:12 DUE TO TIME LIMIT ***",
    "library": "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
    "import": "ModuleNotFoundError: No module named 'timm' (train.py:3)",
    "pickle": "TypeError: cannot pickle '_thread.lock' object",
    "permission": "PermissionError: [Errno 13] Permission denied: '/scratch/data/shard-0912.npz' (train.py:18)",
    "killed": "the driver was ended by SIGKILL",
    "head start": "iris-169: the head of Ray did not start: exit code 1",
    "nodes missing": "1 of 3 nodes after 25 s; missing iris-170 (exit code 1), iris-171",
}  # fmt: skip


def test_each_rule_has_its_excerpt() -> None:
    assert [rule.name for rule in RULES] == list(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_known_failure_is_recognized(name: str) -> None:
    found = causes([Evidence("driver.log", f"before\n{SAID[name]}\nafter\n")], RUN)
    assert found, name
    assert found[0].rule == name
    assert found[0].line in SAID[name] or found[0].line == SAID[name].replace("\\\n", "")[:300]
    assert not re.search(r"[{}]", found[0].sentence + found[0].fix.replace(str(RUN), "")), "a placeholder is left"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("metric missing", "the trainable does not report 'accuracy', which the search needs"),
        ("ray missing", "ray is not installed in the Python that the jobs use"),
        ("import", "the trainable cannot be imported: No module named 'timm' (train.py:3)"),
        ("refused", "Slurm refused the job: Invalid account or account/partition combination specified"),
    ],
)
def test_a_sentence_names_what_was_said(name: str, sentence: str) -> None:
    assert causes([Evidence("driver.log", SAID[name])], RUN)[0].sentence == sentence


def test_our_own_word_for_a_missing_metric_is_known() -> None:
    said = "the trainable's first report: 1 fault\n  metric: 'score' is not among acc, loss; expected one of acc, loss"
    assert causes([Evidence("its records", said)], RUN)[0].sentence.startswith("the trainable does not report 'score'")


def test_the_run_s_own_records_count_more_than_what_stands_in_logs() -> None:
    logs = [Evidence("Ray's raylet.out", SAID["temp dir filling"], 3), Evidence("its records", SAID["quota"])]
    assert [cause.rule for cause in causes(logs, RUN)] == ["quota", "temp dir filling"]


def test_why_counts_more_than_what() -> None:
    logs = [Evidence("its records", SAID["nodes missing"]), Evidence("the log of node iris-170", SAID["threads"], 1)]
    assert [cause.rule for cause in causes(logs, RUN)] == ["threads", "nodes missing"]


@pytest.mark.parametrize(
    "harmless",
    [
        "Python patch version mismatch: The cluster was started with:\n    Ray: 2.60.0",
        "all 4 nodes have joined after 9.2 s",
        "Current best trial: 2f1c0_00001 with accuracy=0.98 and params={'lr': 0.01}",
        "WARNING: torch is not installed",
    ],
)
def test_harmless_words_are_no_cause(harmless: str) -> None:
    assert causes([Evidence("driver.log", harmless)], RUN) == []


def test_the_fix_can_be_typed() -> None:
    fix = causes([Evidence("driver.log", SAID["quota"])], RUN)[0].fix
    assert fix.endswith("hpc-tune resume /scratch/ada/runs/search-1")
