"""Prefect: the pipeline's graph, read from DVC, as tasks; and its scheduled run."""
