"""What the user asks for: the experiment file, its search space, its resources. Pure: no Ray, no Slurm."""
