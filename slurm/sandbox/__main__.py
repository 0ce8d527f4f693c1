"""Run the sandbox command line: `python -m hpc_tune_slurm.sandbox`."""

from .cli import main

if __name__ == "__main__":
    main()
