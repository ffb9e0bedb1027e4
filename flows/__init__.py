"""Prefect: the pipeline's graph, read from DVC, as tasks; and its scheduled run."""

import os

# Before the first import of Prefect, which reads its settings then.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
