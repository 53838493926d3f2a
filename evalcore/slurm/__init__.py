"""Jobs on a Slurm cluster: submitted once, found again, watched all together.

``agent`` runs on the login node and speaks to Slurm; ``cluster`` sends it there and decides what its answers
mean (``states``); ``script`` lays out what is submitted; ``supervise`` runs it on the node.
"""
