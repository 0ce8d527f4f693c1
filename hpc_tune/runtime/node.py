"""The node agent: the process that the job script starts on each node of an allocation.

All agents start at once. That of rank 0 makes the attempt, starts the head and the driver, and publishes the head's
address; the others wait for it and join. An agent lives as long as the attempt and leaves nothing behind on its node.
What the agents tell each other lies in the attempt's directory, one writer per file.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from hpc_tune.errors import HpcTuneError
from hpc_tune.run import RunDir
from hpc_tune.runtime.agent import NodeSettings, Terminated, log
from hpc_tune.runtime.begin import begin_attempt
from hpc_tune.runtime.granted import Place
from hpc_tune.runtime.guardian import split_off_guardian
from hpc_tune.runtime.head import HeadAgent
from hpc_tune.runtime.ray_node import raise_file_limit
from hpc_tune.runtime.worker import WorkerAgent, find_attempt

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the agent of one node until the attempt is over; the exit code is 0 unless this node failed."""
    parser = argparse.ArgumentParser(prog="python -m hpc_tune.runtime.node")
    parser.add_argument("run", type=Path)
    parser.add_argument("--temp-dir", type=Path, default=Path("/tmp"), help="the node's own, with a short path")
    parser.add_argument("--interface", help="network interface for Ray")
    parser.add_argument("--min-nodes", type=int, default=1)
    parser.add_argument("--start-timeout", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--retry-errors", action="store_true", help="in the first attempt since the run was sent")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="for trials to save at the end")
    parser.add_argument("--next", default="successor", metavar="WAY", help="how the next attempt is to be started")
    parser.add_argument("--job-start", type=float, default=time.time(), metavar="EPOCH")
    parsed = parser.parse_args(arguments)
    guardian = split_off_guardian()
    settings = NodeSettings(
        run=RunDir(parsed.run.resolve()),
        temp_dir=parsed.temp_dir,
        interface=parsed.interface,
        min_nodes=parsed.min_nodes,
        start_timeout=parsed.start_timeout,
        retry_errors=parsed.retry_errors,
        patience=parsed.patience,
        job_start=parsed.job_start,
        next_attempt=parsed.next,
        guardian=guardian,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    _catch_termination()
    raise_file_limit()
    try:
        return _serve(settings, Place.from_environment(os.environ))
    except Terminated:
        return 0
    except HpcTuneError as error:
        log.error("%s", error.message)
        return error.exit_code


def _serve(settings: NodeSettings, place: Place) -> int:
    if place.rank == 0:
        return HeadAgent(settings, place, begin_attempt(settings, place)).serve()
    return WorkerAgent(settings, place, find_attempt(settings, place)).serve()


def _catch_termination() -> None:
    """Turn the first SIGTERM or SIGINT into an orderly end; the clean-up is not interrupted."""

    def terminate(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        raise Terminated

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)


if __name__ == "__main__":
    sys.exit(main())
