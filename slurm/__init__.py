"""What Slurm itself reads: the job template, the site profiles and the sandbox, shipped as package data."""
