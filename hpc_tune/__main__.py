"""``python -m hpc_tune``, for job scripts: the command may not be on the path of a compute node."""

from hpc_tune.cli import main

main()
