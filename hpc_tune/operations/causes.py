"""Why runs fail: what programs say when they do, what that means, and what helps. One table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RULES", "Cause", "Evidence", "Rule", "causes"]


@dataclass(frozen=True)
class Evidence:
    """A text in which the reason of a failure may stand."""

    source: str
    """Where it comes from, for people."""
    text: str
    weight: int = 0
    """0: the run's own records and what failed trials said; higher: logs, in which much is said that does no harm."""
    path: Path | None = None


@dataclass(frozen=True)
class Rule:
    """One known failure."""

    name: str
    pattern: str
    """A regular expression for a line; its named groups may stand in the sentence and in the fix."""
    sentence: str
    fix: str
    """What to do; ``{run}`` is the run's directory."""
    vague: bool = False
    """Whether it names what happened rather than why: any other rule that fits says more."""


@dataclass(frozen=True)
class Cause:
    """A failure that was recognized."""

    rule: str
    sentence: str
    fix: str
    source: str
    line: str
    """What was said."""
    path: Path | None = None


_AGAIN = "try again: hpc-tune resume {run}"
_MEMORY = "ask for more memory (--set allocation.memory=...) or let fewer trials share a node (a larger trial.cpus)"

RULES = (
    Rule(
        "metric missing",
        r"(?:did not include the specified metric\(s\) |: )[`'](?P<metric>[^`']+)[`'](?: that| is not among)",
        "the trainable does not report {metric!r}, which the search needs",
        "report it with ray.tune.report, or name what is reported as metric in the experiment; submit again",
    ),
    Rule(
        "cuda out of memory",
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        "a trial needs more memory than its GPU, or its share of one, has",
        "make the batch or the model smaller, or let fewer trials share a GPU (a larger trial.gpus)",
    ),
    Rule(
        "cuda not compiled in",
        r"Torch not compiled with CUDA enabled",
        "the PyTorch of the jobs is built for CPUs only",
        "install a CUDA build of torch in the environment of the jobs; hpc-tune doctor --job shows which one they have",
    ),
    Rule(
        "cuda missing",
        r"No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device is detected",
        "a trial finds no GPU",
        "ask for GPUs (trial.gpus, --gpus-per-node) in a partition that has them",
    ),
    Rule(
        "cuda mismatch",
        r"CUDA driver version is insufficient|driver on your system is too old|no kernel image is available",
        "this build of PyTorch does not fit the GPUs or their driver",
        "install a build of torch for the CUDA version that nvidia-smi shows on a node",
    ),
    Rule(
        "ray missing",
        r"No module named '(?P<module>ray|hpc_tune|hpc_tune_slurm)(?:\.[\w.]+)?'",
        "{module} is not installed in the Python that the jobs use",
        "name the right one in the site's [environment] (venv, conda, container or python), then submit again",
    ),
    Rule(
        "environment missing",
        r"(?P<what>[\w./-]+/activate: No such file or directory|(?:conda|apptainer|module|python[\d.]*): (?:command )?"
        r"not found|EnvironmentNameNotFound.*|The following module\(s\) are unknown.*|Unable to locate a modulefile.*)",
        "the environment of the jobs cannot be set up: {what}",
        "correct [environment] in the site's profile (hpc-tune site show), then submit again",
    ),
    Rule(
        "version mismatch",
        r"(?<!patch )[Vv]ersion mismatch: The cluster was started with",
        "nodes of one attempt have different versions of Ray or Python",
        "use one environment on all nodes: name it in the site's [environment]; hpc-tune doctor --job compares",
    ),
    Rule(
        "disk full",
        r"No space left on device|Errno 28\b|no space is left on |Write failed: disk full",
        "a disk is full",
        "make room (df -h, df -i; old runs: hpc-tune list), then: hpc-tune resume {run}",
    ),
    Rule(
        "quota",
        r"Disk quota exceeded|Errno 122\b|the quota on \S+ is used up",
        "your quota is used up, of bytes or of files",
        "make room (old runs: hpc-tune list; checkpoint.keep = 1), then: hpc-tune resume {run}",
    ),
    Rule(
        "temp dir full",
        r"(?P<where>/\S*) has (?P<free>\d+) MB free; Ray needs",
        "the temporary directory {where} of a node is full",
        "keep off the node (--set allocation.exclude=NODE) or set temp_dir in the site's profile to another local disk",
    ),
    Rule(
        "temp dir filling",
        r"(?P<where>/\S+) is over (?P<percent>[\d.]+)% full",
        "the disk with {where} on a node was nearly full",
        "set temp_dir in the site's profile to a local disk with more room",
    ),
    Rule(
        "socket path",
        r"AF_UNIX path (?:length cannot exceed|too long)",
        "the path of Ray's temporary directory is too long for a socket",
        "set temp_dir in the site's profile to a short path, such as /tmp",
    ),
    Rule(
        "token",
        r"InvalidAuthToken|Authentication token is missing or incorrect|RAY_AUTH_MODE.*no token",
        "a process came to Ray without the attempt's token",
        "leave RAY_AUTH_MODE, RAY_AUTH_TOKEN and RAY_ADDRESS out of the trainable and the site's [environment]",
    ),
    Rule(
        "proxy",
        r"HTTP proxy returned|failed to connect through (?:HTTP )?proxy|Proxy(?:Connection)?Error|"
        r"Tunnel connection failed",
        "a connection was sent through a proxy that does not let it pass",
        "unset the proxy variables for what has to reach it directly, or set no_proxy in the site's [environment]",
    ),
    Rule(
        "interface",
        r"the network interface '(?P<name>[^']+)' has no IPv4 address",
        "a node has no network interface {name} with an IPv4 address",
        "set interface in the site's profile to one that all nodes have (ip -brief -4 address), or leave it out",
    ),
    Rule(
        "no route",
        r"No route to host|Network is unreachable|cannot find the matched Raylet address",
        "a node cannot reach the address that the head has announced",
        "set interface in the site's profile to the cluster's inner network, such as ib0",
    ),
    Rule(
        "port taken",
        r"Address already in use|[Ee]rrno:? ?98\b|Failed to bind|No available ports",
        "a port that Ray needs was taken by another process of the node",
        "try again: hpc-tune resume {run}; each start takes other ports",
    ),
    Rule(
        "ray out of memory",
        r"node running low on memory|killed due to memory pressure|OutOfMemoryError: Task was killed",
        "trials used up the memory of their node, and Ray ended one of them",
        _MEMORY,
    ),
    Rule(
        "slurm out of memory",
        r"oom[-_ ]kill event|OUT_OF_MEMORY|used more memory than it asked for|Exceeded job memory limit",
        "the job used more memory than it has, and Slurm ended some of its processes",
        _MEMORY,
    ),
    Rule(
        "out of memory",
        r"MemoryError|DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|Unable to allocate [\d.]+ .iB",
        "a process got no memory",
        _MEMORY,
    ),
    Rule(
        "shared memory",
        r"[Bb]us error|SIGBUS|insufficient shared memory|unable to (?:open|mmap|allocate) shared memory",
        "/dev/shm of a node is too small for the data that processes share",
        "use fewer DataLoader workers, or smaller data; in a container bind the node's own /dev/shm",
    ),
    Rule(
        "open files",
        r"Too many open files|Errno 24\b",
        "a process had as many files open as it may",
        'raise the limit: setup = ["ulimit -n $(ulimit -Hn)"] in the site\'s [environment]',
    ),
    Rule(
        "threads",
        r"pthread_create failed|can't start new thread|Thread creation failed|std::system_error.*Resource temporarily|"
        r"fork: (?:retry: )?Resource temporarily unavailable",
        "you had as many processes and threads on a node as you may (ulimit -u)",
        "ask for fewer CPUs per node, or set OPENBLAS_NUM_THREADS=1 in the site's [environment] variables",
    ),
    Rule(
        "workers register",
        r"have not registered within the timeout|worker_register_timeout",
        "Python starts so slowly on the nodes that Ray gave up waiting for its workers",
        "keep the environment on a fast disk, or set RAY_worker_register_timeout_seconds=300 in the site's variables",
    ),
    Rule(
        "resources",
        r"No available node types can fulfill|resource request cannot be scheduled",
        "a trial asks for more than any node of the job has",
        "lower trial.cpus or trial.gpus, or ask for larger nodes",
    ),
    Rule(
        "refused",
        r"(?P<what>Invalid account or account/partition combination specified|User's group not permitted to use this "
        r"partition|Invalid qos specification|invalid partition specified|Requested time limit is invalid|"
        r"Job violates accounting/QOS policy|Invalid partition name specified)",
        "Slurm refused the job: {what}",
        "change allocation.account, partition, qos or time; yours: sacctmgr show associations user=$USER",
    ),
    Rule(
        "short walltime",
        r"attempt (?P<number>\d+) reached its walltime (?P<after>.+) without a result",
        "the walltime is too short for one iteration of a trial",
        "ask for more: hpc-tune resume {run} --time ...; or report more often",
    ),
    Rule(
        "preempted",
        r"DUE TO PREEMPTION|\bPREEMPTED\b|it was preempted",
        "Slurm took the nodes for another job",
        "go on with: hpc-tune resume {run}; a QOS that cannot be preempted keeps its nodes",
    ),
    Rule(
        "node failure",
        r"DUE TO NODE FAILURE|\bNODE_FAIL\b|a node failed|the head node (?P<node>\S+) is lost",
        "a node of the job failed",
        "go on with: hpc-tune resume {run}; to keep off the node: --set allocation.exclude=NODE",
    ),
    Rule(
        "time limit",
        r"DUE TO TIME LIMIT|\bTIMEOUT\b|it reached its time limit",
        "the walltime was over before the search was saved",
        "go on with: hpc-tune resume {run}; a larger allocation.grace leaves more time to save",
    ),
    Rule(
        "library",
        r"ImportError: (?P<what>\S+\.so[\w.]*: cannot open shared object file|.*GLIBC\w* not found.*)",
        "a library is missing on a node: {what}",
        "load its module in the site's [environment], or install the package for the system of the nodes",
    ),
    Rule(
        "import",
        r"(?:ModuleNotFound|Import)Error: (?P<what>.+)",
        "the trainable cannot be imported: {what}",
        "install what is missing in the environment of the jobs, or put it beside the experiment file; submit again",
    ),
    Rule(
        "pickle",
        r"Could not serialize|cannot pickle '(?P<what>[^']+)' object",
        "the trainable holds something that cannot be sent to another process",
        "open files, locks and models inside the trainable, not outside of it",
    ),
    Rule(
        "permission",
        r"Permission denied: '?(?P<what>[^']+)'?",
        "a file may not be read or written: {what}",
        "choose a place that your jobs may write to: --runs-dir, temp_dir in the site's profile",
    ),
    Rule(
        "killed",
        r"the driver was ended by SIGKILL|killed by signal 9|unexpected system error.*SIGKILL",
        "a process of the search was killed, most often for the memory that it used",
        _MEMORY,
        vague=True,
    ),
    Rule(
        "head start",
        r"the head of Ray (?:did not start|does not answer|ended)|the head did not answer|agent has made no attempt",
        "Ray's head did not start on the first node",
        "see the log of the node; on a slow file system a larger allocation.start_timeout helps; " + _AGAIN,
        vague=True,
    ),
    Rule(
        "nodes missing",
        r"(?P<joined>\d+) of (?P<wanted>\d+) nodes after|Ray has not joined after|Ray did not start|"
        r"its agent has not shown itself",
        "nodes of the job did not join",
        "allocation.min_nodes lets a search start without them; see their logs with: hpc-tune logs {run}",
        vague=True,
    ),
)
"""Those that say more come first where several fit one line."""


def causes(evidence: Iterable[Evidence], run: Path) -> list[Cause]:
    """Return the failures that the evidence shows, the likeliest first, each once."""
    found = sorted(_matches(list(evidence)), key=lambda match: match[:3])
    first = {rule.name: (rule, each, line) for *_, rule, each, line in reversed(found)}
    return [_cause(*first[name], run) for name in dict.fromkeys(rule.name for *_, rule, _, _ in found)]


def _matches(evidence: list[Evidence]) -> Iterator[tuple[bool, int, int, Rule, Evidence, re.Match[str]]]:
    for order, rule in enumerate(RULES):
        pattern = re.compile(rule.pattern)
        for each in evidence:
            if match := pattern.search(each.text):
                yield rule.vague, each.weight, order, rule, each, match


def _cause(rule: Rule, evidence: Evidence, match: re.Match[str], run: Path) -> Cause:
    groups = {name: value or "" for name, value in match.groupdict().items()}
    begin = match.string.rfind("\n", 0, match.start()) + 1
    end = match.string.find("\n", match.end())
    line = match.string[begin : None if end < 0 else end].strip()
    fix = rule.fix.replace("{run}", str(run))
    return Cause(rule.name, rule.sentence.format(**groups), fix, evidence.source, line[:300], evidence.path)
