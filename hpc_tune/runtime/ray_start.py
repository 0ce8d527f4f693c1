"""Ray's processes of one node: ``ray start``, imported before it is known what to start.

The import takes as long as the head needs until it answers, so workers do it meanwhile. The arguments come as a line
of JSON on standard input. When the node agent dies, so does this, and Ray's processes with it.
"""

from __future__ import annotations

import json
import sys

from hpc_tune.process import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Import Ray, wait for the arguments, and be ``ray start``."""
    end_with_parent()
    from ray.scripts import scripts

    # where grpcio is installed a head also serves Ray Client, which nobody here asks for, on one port for all clusters
    scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted")
    line = sys.stdin.readline()
    if line:  # else the agent ended before there was anything to join
        sys.argv = ["ray", *json.loads(line)]
        scripts.main()


if __name__ == "__main__":
    main()
