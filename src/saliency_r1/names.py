"""Names that several rooms share: of tasks, models trained here, measures of a map, sources of an instance's score."""

from __future__ import annotations

from typing import Literal, get_args

TaskName = Literal["sod", "sis", "cosod"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)

# The models of the pipeline in the order of their training.
TrainedName = Literal["base", "sft", "cgpo"]
TRAINED: tuple[TrainedName, ...] = get_args(TrainedName)

# What is kept of every single map: the columns of the metrics stage's table.
MEASURES = ("Sm", "MAE", "wFm", "adpFm", "adpEm", "maxFm", "maxEm", "IoU")

# `segmenter`: its own estimate of the mask's IoU; `mask_probability`: the mean probability inside the mask;
# `token_probability`: the policy's mean over the response; `constant`: every instance alike.
ScoreSource = Literal["segmenter", "mask_probability", "token_probability", "constant"]
SCORE_SOURCES: tuple[ScoreSource, ...] = get_args(ScoreSource)
