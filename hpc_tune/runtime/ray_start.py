"""Ray's processes of one node: ``ray start``, imported before it is known what to start.

The import takes as long as the head needs until it answers, so workers do it meanwhile. The arguments come as a line
of JSON on standard input. When the node agent dies, so does this, and Ray's processes with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc_tune.process import end_with_parent

__all__ = ["leave_out_dashboard", "main", "without_agent"]

AGENT = "--dashboard_agent_command="
"""The raylet's option that says what to start as its dashboard agent, in one word."""
STAND_IN = "hpc_tune.runtime.no_dashboard"


def main() -> None:
    """Import Ray, wait for the arguments, and be ``ray start``."""
    end_with_parent()
    from ray.scripts import scripts

    leave_out_dashboard()
    # where grpcio is installed a head also serves Ray Client, on one port for all clusters; no option tells it not to
    scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted")
    line = sys.stdin.readline()
    if line:  # else the agent ended before there was anything to join
        sys.argv = ["ray", *json.loads(line)]
        scripts.main()


def leave_out_dashboard() -> None:
    """Keep Ray from starting processes in this one, and from waiting for them, that only a dashboard would need.

    There are no options for it. Should Ray start them in another way some day, it does, and all goes on as well.
    """
    from ray._private import services

    # a dashboard that is left out is started all the same, to count usage, and the head's raylet waits until it answers
    services.start_api_server = lambda *_, **__: (None, None)
    agent = str(Path(services.RAY_PATH, "dashboard", "agent.py"))
    start = services.start_ray_process
    services.start_ray_process = lambda command, *rest, **options: start(
        without_agent(command, agent), *rest, **options
    )


def without_agent(command: Sequence[str], agent: str) -> list[str]:
    """Return a raylet's command with the dashboard agent's program replaced by the one that stands in for it."""
    program = subprocess.list2cmdline([agent])  # as Ray writes it into the raylet's option
    return [word.replace(program, f"-m {STAND_IN}", 1) if word.startswith(AGENT) else word for word in command]


if __name__ == "__main__":
    main()
