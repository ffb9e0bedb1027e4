"""The three tasks. One class each serves annotation, training, reward and evaluation: `tasks.get("sod")`."""

from saliency_r1.tasks.base import InstanceTruth, Prediction, Reward, SaliencyTruth, Segmented, Task, Truth
from saliency_r1.tasks.instances import Sis
from saliency_r1.tasks.saliency import CoSod, Sod

TASKS: dict[str, Task] = {task.name: task for task in (Sod(), Sis(), CoSod())}


def get(name: str) -> Task:
    """The task of that name; `ValueError` names the known ones."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}, expected one of {', '.join(TASKS)}")
    return TASKS[name]


__all__ = [
    "TASKS", "CoSod", "InstanceTruth", "Prediction", "Reward", "SaliencyTruth", "Segmented", "Sis", "Sod", "Task",
    "Truth", "get",
]  # fmt: skip
