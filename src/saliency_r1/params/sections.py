"""The sections of `params.yaml`, one class each, in the order of the pipeline."""

import re
from collections.abc import Mapping, Sequence
from os.path import expanduser
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from saliency_r1.names import TRAINED, ScoreSource, TrainedName
from saliency_r1.params.section import Count, Name, NotNegative, Positive, Section, Share, Split, Steps

# Settings of an endpoint that decide how fast and how much is asked, and not the answers.
PACE = (
    "concurrency", "requests_per_minute", "timeout", "retries", "backoff", "max_requests", "max_tokens", "max_cost",
    "prices",
)  # fmt: skip


class Runtime(Section):
    """Where and how tensors are computed; shared by every stage that runs a model."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    dtype: Literal["float32", "bfloat16"]
    threads: Count


class Policy(Section):
    """How the policy sees and speaks."""

    min_pixels: Count
    max_pixels: Count
    max_new_tokens: Count
    batch_size: Count
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    autocast: bool
    gradient_checkpointing: bool

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of `policy.Policy.load` among these."""
        return self.model_dump(exclude={"max_new_tokens", "batch_size"})

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is larger than max_pixels {self.max_pixels}")
        return self


class Segmenter(Section):
    """How many images and phrases go through the segmenter at once."""

    batch_images: Count
    batch_phrases: Count


class Download(Section):
    """What is taken from the catalogue."""

    catalogue: Name
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    policy: Name
    segmenter: Name
    mirror: Annotated[Name, AfterValidator(expanduser)] | None
    cosod_chunk: Count
    limit: Count | None
    allow_missing: tuple[str, ...]


class Endpoint(Section):
    """A server that speaks the OpenAI chat protocol; `max_requests`, `max_tokens`, `max_cost` are the budget of a run.

    `prices` are those of a million tokens of a prompt and of an answer, in any currency; a file that has been there
    before the two could be said need not say them.
    """

    url: str
    concurrency: Count
    requests_per_minute: Positive | None
    timeout: Positive
    retries: Steps
    backoff: NotNegative
    temperature: NotNegative
    max_requests: Count | None
    max_tokens: Count | None
    max_cost: Positive | None = None
    prices: Annotated[tuple[NotNegative, ...], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is not None and self.prices is None:
            raise ValueError("max_cost needs prices: those of a million tokens of a prompt and of an answer")
        return self


class Annotate(Section):
    """Output-to-reasoning: from the ground truth to the annotated response."""

    annotator: Literal["offline", "openai", "local"]
    variety: Share
    vagueness: Share
    model: str
    answer_tokens: Count
    endpoint: Endpoint
    threshold: Share
    attempts: Count
    splits: Annotated[tuple[Split, ...], Field(min_length=1)]
    limit: Count | None


class Lora(Section):
    """The adapter. `targets` is a regular expression over whole module names; only the language model's are adapted.

    `modules_to_save` names modules that are trained as they are, such as `embed_tokens` where the text has words that
    the base has never learnt.
    """

    r: Count
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: str
    modules_to_save: tuple[str, ...]

    @field_validator("targets")
    @classmethod
    def _expression(cls, targets: str) -> str:
        try:
            re.compile(f"(?:)(?:{targets})")  # it stands behind another one, where global flags may not
        except re.error as error:
            raise ValueError(f"{targets!r}, expected a regular expression over module names: {error}") from None
        return targets


class Sft(Section):
    """Supervised fine-tuning on the annotated responses."""

    lr: Positive
    steps: Count
    batch_size: Count
    micro_batch: Count
    warmup: Steps
    weight_decay: NotNegative
    adam_epsilon: Positive
    max_grad_norm: Positive
    average: Annotated[float, Field(ge=0, lt=1)]
    lora: Lora | None
    checkpoint_every: Count
    evaluate_samples: Count


class Weights(Section):
    """Weights of the reward's components; they sum to one, so that a reward lies in [0, 1]."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = sum(self.model_dump().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights {self.model_dump()} sum to {total:g}, not to 1")
        return self


class SaliencyWeights(Weights):
    """Reward of a binary mask (SOD, CoSOD)."""

    s_measure: Share
    iou: Share
    format: Share


class InstanceWeights(Weights):
    """Reward of a set of instances (SIS)."""

    matched_iou: Share
    format: Share


class Rewards(Section):
    """What an answer is worth, task by task."""

    sod: SaliencyWeights
    sis: InstanceWeights
    cosod: SaliencyWeights


class Isr(Section):
    """Interleaved SFT regularisation: one supervised step after every `every` updates; 0 switches it off.

    `moments` are those of Adam that its steps use: those of the RL steps too, or own ones.
    """

    every: Steps
    weight: NotNegative
    batch_size: Count
    moments: Literal["own", "shared"]


class Cgpo(Section):
    """Reinforcement learning from masks. `algorithm: cgpo` is A = r - c, normalised as `normalise` says."""

    algorithm: Literal["cgpo", "reinforce_pp", "rloo", "grpo", "remax"]
    normalise: Literal["none", "leave_one_out", "batch", "task"]
    group_size: Count
    lr: Positive
    updates: Count
    batch_size: Count
    micro_batch: Count
    temperature: Positive
    confidence: Literal["all", "reasoning", "answer"]
    confidence_end_token: bool
    epochs: Count
    clip: Annotated[float, Field(gt=0, lt=1)]
    kl: NotNegative
    drift_every: Steps
    isr: Isr
    warmup: Steps
    weight_decay: NotNegative
    adam_epsilon: Positive
    max_grad_norm: Positive
    average: Annotated[float, Field(ge=0, lt=1)]
    checkpoint_every: Count

    @model_validator(mode="after")
    def _compared(self) -> Self:
        """What an algorithm compares has to be in a batch; told here, before annotation and SFT have run for hours."""
        if self.algorithm not in ("grpo", "rloo"):
            if self.group_size != 1:
                raise ValueError(f"group_size {self.group_size}: {self.algorithm} samples one response a prompt; set 1")
        elif self.group_size < 2 or self.batch_size % self.group_size:
            raise ValueError(
                f"group_size {self.group_size} with batch_size {self.batch_size}: {self.algorithm} needs groups of two "
                "or more that divide the batch"
            )
        alone = self.algorithm == "remax" or (self.algorithm == "cgpo" and self.normalise == "none")
        if self.batch_size < 2 and not alone:
            raise ValueError(
                f"batch_size {self.batch_size}: {self.algorithm} compares the responses of an update, two or more"
            )
        return self


class Asked(Section):
    """A model that was not trained here, and how it is asked: by the task's instruction, the grammar and examples.

    `model` is a folder or a name on the hub, or with an `endpoint` what its server calls the model; `shots` is the
    number of worked examples from the annotated training split.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
    model: str
    shots: Steps
    endpoint: Endpoint | None

    @field_validator("name")
    @classmethod
    def _its_own(cls, name: str) -> str:
        if name in TRAINED:
            raise ValueError(f"{name!r} is the name of a model that is trained here; give this one another")
        return name


def _kind_of_entry(entry: Any) -> str:
    return "asked" if isinstance(entry, Mapping | Asked) else "trained"


_Trained = Annotated[TrainedName, Tag("trained")]
_Asked = Annotated[Asked, Tag("asked")]
Entry = Annotated[_Trained | _Asked, Discriminator(_kind_of_entry)]
TAGS: Any = {"trained": TrainedName, "asked": Asked}  # which stand between a list's place and what is there


class Masks(Section):
    """Greedy predictions on one split, by the named models: those trained here by their names, others as `Asked`."""

    models: Annotated[tuple[Entry, ...], Field(min_length=1)]
    batch_size: Count
    score: ScoreSource
    split: Split

    @field_validator("models")
    @classmethod
    def _told_apart(cls, models: tuple[str | Asked, ...]) -> tuple[str | Asked, ...]:
        names = model_names(models)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two models are called {twice[0]!r}")
        return models


def model_names(models: Sequence[str | Asked]) -> list[str]:
    """What the entries of `masks.models` are called."""
    return [entry if isinstance(entry, str) else entry.name for entry in models]


class Metrics(Section):
    """The evaluation."""

    workers: Count


class Report(Section):
    """The page."""

    examples: Count


class Model(Section):
    """The folder that is handed on: adapter, base, segmenter, their numbers and a card."""

    title: str


class Judge(Section):
    """When a night's model takes the champion's place; differences are of the mean reward, at most 1."""

    minimum_effect: Share
    margin: Share
    parse_failures: Share
    level: Annotated[float, Field(gt=0, lt=1)]


class Drift(Section):
    """When the data counts as moved, and whether that stops a night."""

    distance: Share
    level: Annotated[float, Field(gt=0, lt=1)]
    stop: bool


class Checks(Section):
    """Thresholds of the gates. Shares are of a table's rows."""

    consistency: Share
    consistency_share: Share
    kept_share: Share
    sft_parse_failures: Share
    cgpo_parse_failures: Share
    masks_parse_failures: Share
