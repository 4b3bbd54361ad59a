"""Training runs as jobs of a Slurm cluster: submitted, followed, and brought back when stopped."""
