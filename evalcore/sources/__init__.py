"""Where checkpoints lie that are no folder: a module for each kind, named after its key in a tracked file."""
