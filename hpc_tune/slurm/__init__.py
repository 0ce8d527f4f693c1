"""The only talk with Slurm: its commands, its states, its sites."""
