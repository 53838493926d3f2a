"""Evaluate LLM checkpoints: convert, serve, generate, grade, judge, summarize.

Every stage is a plain function from files to files and a CLI verb of the same name. Nothing here
knows of Airflow; the package installs alone on a cluster node.
"""

__version__ = "0.1.0"
