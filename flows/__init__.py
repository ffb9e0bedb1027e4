"""Prefect: the pipeline's graph, read from DVC, as tasks; and its scheduled run."""

import os

from saliency_r1.registry.git import LOCAL

# Before the first import of Prefect, which reads its settings then.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

# A flow that a hook or an alias of git starts works on its own folder; DVC, also in this process, would believe these.
for name in LOCAL:
    os.environ.pop(name, None)
