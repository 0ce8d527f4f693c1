"""Stands in for Ray's dashboard agent on a node.

Ray's own imports all of Ray, and a node is not part of the cluster before it has said on which ports it serves. Where
Ray is installed without its dashboard it serves on none and waits for the end. So does this, at once; and where Ray
has its dashboard, no further port is open to the other users of a node.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from hpc_tune.process import end_with_parent

__all__ = ["main"]

_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
_NONE = "-1"


def main() -> None:
    """Say that there are no ports, as Ray's agent does in ``--minimal`` mode, and wait for the end of the raylet."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m hpc_tune.runtime.no_dashboard")
    parser.add_argument("--session-dir", type=Path, required=True)
    parser.add_argument("--node-id", required=True)
    known, _ = parser.parse_known_args()
    for port in _PORTS:
        written = known.session_dir / f".{port}_{known.node_id}"
        written.write_text(_NONE)
        written.rename(known.session_dir / f"{port}_{known.node_id}")
    signal.pause()


if __name__ == "__main__":
    main()
