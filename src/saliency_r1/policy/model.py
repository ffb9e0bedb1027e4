"""Qwen2.5-VL: load, encode prompts, generate, and log-probabilities on the distribution that was sampled from.

Two traps are closed here once for all callers. Published checkpoints carry a generation config that changes sampling
(temperature, repetition penalty), so every sampling value is passed explicitly and neutral. And a sampled
`<|image_pad|>` would break the next forward pass, so the ids of `suppressed` are excluded when sampling *and* masked
before the softmax of `logprobs`: confidence is measured on the distribution that was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
)

from saliency_r1.policy.exported import parts
from saliency_r1.policy.scores import token_scores

NEVER_SAMPLED = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
                 "<|im_start|>", "<|endoftext|>")  # fmt: skip
IGNORED = -100


class PolicyError(ValueError):
    """A policy that cannot be loaded; the message names the folder."""


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt: `input_ids` (tokens,), `pixel_values` (patches, patch size), `image_grid_thw` (images, 3)."""

    input_ids: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor


@dataclass(frozen=True)
class Response:
    """A generated answer: its text, its token ids (the end token included if it was reached) and whether it ended.

    `logprobs`: of a sampled answer, the log-probability of each token as it was drawn; of a greedy one, nothing.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool
    logprobs: tuple[float, ...] = ()


class Sampler(LogitsProcessor):
    """Draws the next token of each row from the row's own stream of random numbers (the Gumbel-max trick).

    The largest of logits / temperature + Gumbel noise is a sample of the softmax. With one seed a row, what is sampled
    does not depend on the batch, its order, or the process it is drawn in. `logprobs` has a tensor (rows,) a step: the
    log-probabilities of what was drawn.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self.temperature = temperature
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Perturbed scores (rows, vocabulary); suppressed tokens stay at -inf."""
        waits = [torch.empty_like(scores[0]).exponential_(generator=stream) for stream in self.streams]
        scaled = scores / self.temperature
        perturbed = scaled - torch.stack(waits).log()
        drawn = scaled.gather(-1, perturbed.argmax(-1, keepdim=True)).squeeze(-1)
        self.logprobs.append(drawn - scaled.logsumexp(-1))
        return perturbed


class Policy:
    """A Qwen2.5-VL model with its processor. `model` is the plain or the PEFT-wrapped network."""

    def __init__(self, model: Any, processor: Any, device: str | torch.device = "cpu", autocast: bool = False) -> None:
        self.model = model.to(device)
        self.autocast = autocast
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.device = torch.device(device)
        known = self.tokenizer.get_vocab()
        self.suppressed = sorted(known[token] for token in NEVER_SAMPLED if token in known)
        self.end_id: int = known["<|im_end|>"]
        self.pad_id: int = known["<|endoftext|>"]
        self.image_id: int = known["<|image_pad|>"]

    @classmethod
    def load(
        cls,
        folder: str | Path,
        adapter: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        attention: str = "sdpa",
        autocast: bool = False,
        gradient_checkpointing: bool = False,
        trainable: bool = False,
    ) -> Policy:
        """Read a Hugging Face folder and, if given, what was learnt on top of it.

        `folder` may also be what `saliency-r1 export` has written, whose base is found from there.
        `adapter`: a PEFT folder (loaded, never wrapped again), or after full fine-tuning the folder of a whole model.
        `autocast` computes in bfloat16 whatever the weights are; `gradient_checkpointing` trades time for memory in
        training. Raises `PolicyError` for an adapter of another base.
        """
        processor = AutoProcessor.from_pretrained(folder)
        if min_pixels is not None and max_pixels is not None:
            processor.image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
        folder, adapter = parts(folder, adapter)
        lora = adapter if adapter is not None and (Path(adapter) / "adapter_config.json").exists() else None
        weights = folder if adapter is None or lora else adapter
        model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            weights, dtype=dtype, attn_implementation=attention
        )
        if gradient_checkpointing:
            checkpoint_layers(model)
        if lora:
            model = put_on(model, Path(lora), trainable, Path(folder))
        else:
            freeze_vision(model)
        spare_inputs(model)
        return cls(model.eval(), processor, device, autocast)

    def prompt(self, images: Sequence[Image.Image], instruction: str) -> Prompt:
        """Encode images (RGB) and an instruction as one user turn that waits for the assistant's answer."""
        content: list[dict[str, Any]] = [{"type": "image"} for _ in images]
        content.append({"type": "text", "text": instruction})
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        encoded = self.processor(text=[text], images=list(images) or None, return_tensors="pt")
        empty_grid = torch.zeros(0, 3, dtype=torch.long)
        return Prompt(
            input_ids=encoded["input_ids"][0],
            pixel_values=encoded.get("pixel_values", torch.zeros(0)),
            image_grid_thw=encoded.get("image_grid_thw", empty_grid),
        )

    def response_ids(self, text: str) -> list[int]:
        """Token ids of an answer, its end token included."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.end_id]

    def collate(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]] | None = None) -> dict[str, Tensor]:
        """Batch prompts (left-padded) or prompts with responses (right-padded, `labels` = response ids else -100)."""
        rows, labels = [], []
        for index, prompt in enumerate(prompts):
            answer = torch.tensor(list(responses[index]) if responses is not None else [], dtype=torch.long)
            rows.append(torch.cat([prompt.input_ids, answer]))
            labels.append(torch.cat([torch.full_like(prompt.input_ids, IGNORED), answer]))
        side = "left" if responses is None else "right"

        def pad(sequences: list[Tensor], value: int) -> Tensor:
            return nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value, padding_side=side)

        input_ids = pad(rows, self.pad_id)
        batch = {
            "input_ids": input_ids,
            "attention_mask": pad([torch.ones_like(row) for row in rows], 0),
            "mm_token_type_ids": (input_ids == self.image_id).long(),
        }
        grids = [prompt.image_grid_thw for prompt in prompts if len(prompt.image_grid_thw)]
        if grids:
            batch["pixel_values"] = torch.cat([prompt.pixel_values for prompt in prompts if len(prompt.image_grid_thw)])
            batch["image_grid_thw"] = torch.cat(grids)
        if responses is not None:
            batch["labels"] = pad(labels, IGNORED)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        seeds: Sequence[int] | None = None,
        temperature: float = 1.0,
    ) -> list[Response]:
        """One answer a prompt: greedy, or with one seed each sampled at `temperature` from the whole distribution.

        An answer depends on its own prompt and seed alone, not on what else is in the batch.
        """
        batch = self.collate(prompts)
        training = self.model.training
        self.model.eval()
        samplers = [] if seeds is None else [Sampler(seeds, temperature, self.device)]
        with self._precision():
            output = self.model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,  # the sampler has drawn already: the largest of the perturbed logits is the sample
                logits_processor=LogitsProcessorList(samplers),
                repetition_penalty=1.0,
                suppress_tokens=self.suppressed,
                eos_token_id=self.end_id,
                pad_token_id=self.pad_id,
                use_cache=True,
            )
        self.model.train(training)
        rows = output[:, batch["input_ids"].shape[1] :].tolist()
        logprobs = torch.stack(samplers[0].logprobs, 1).tolist() if samplers else [[]] * len(rows)
        return [self._response(ids, own) for ids, own in zip(rows, logprobs)]

    def _precision(self) -> torch.autocast:
        """Of generation and of the forward pass alike, so that confidence speaks of what was sampled."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _response(self, ids: list[int], logprobs: list[float]) -> Response:
        """Cut a generated row at its end token."""
        ended = self.end_id in ids
        kept = ids[: ids.index(self.end_id) + 1] if ended else ids
        text = self.tokenizer.decode(kept[:-1] if ended else kept)
        return Response(text, tuple(kept), ended, tuple(logprobs[: len(kept)]))

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits that predict the responses' tokens (tokens of all rows one after the other, vocabulary).

        They have the type that the model computes in; those of suppressed tokens are -inf.
        """
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        answers = nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))
        # The output layer sees the responses' tokens alone: prompts with images are long, and vocabularies large.
        handle = self.model.get_output_embeddings().register_forward_pre_hook(lambda _, states: (states[0][answers],))
        try:
            with self._precision():
                logits: Tensor = self.model(**inputs, use_cache=False).logits
        finally:
            handle.remove()
        # Past autograd, which would copy a gradient of this size: they are 0 in the softmax, and so is their gradient.
        logits.detach().index_fill_(-1, torch.tensor(self.suppressed, device=logits.device), float("-inf"))
        return logits

    def logprobs(self, batch: dict[str, Tensor], temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the responses' tokens (rows, tokens - 1) and the mask of those tokens (0 elsewhere)."""
        return self.logprobs_and_entropy(batch, temperature)[:2]

    def logprobs_and_entropy(self, batch: dict[str, Tensor], temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """As `logprobs`, and the entropy (nats, detached) of the distribution each token was drawn from."""
        mask = batch["labels"][:, 1:] != IGNORED
        logprobs, entropy = token_scores(self.logits(batch), batch["labels"][:, 1:][mask], temperature)

        def placed(values: Tensor) -> Tensor:
            return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values)

        return placed(logprobs), mask, placed(entropy)


def put_on(model: Any, lora: Path, trainable: bool, folder: Path) -> Any:
    """The model of `folder` with a stored adapter on it; PEFT alone would pass over what fits nowhere."""
    from peft import PeftModel, get_peft_model_state_dict

    try:
        model = PeftModel.from_pretrained(model, lora, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise PolicyError(f"{lora} is not an adapter of {folder}: {str(error).strip().splitlines()[-1]}") from error
    with safe_open(lora / "adapter_model.safetensors", "pt") as file:
        stray = set(file.keys()) ^ set(get_peft_model_state_dict(model))
    if stray:
        raise PolicyError(f"{lora} is not an adapter of {folder}: only one of the two has {min(stray)}")
    return model


def checkpoint_layers(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Compute the language model's layers again in the backward pass instead of keeping what they left."""
    model.model.language_model.activation_checkpointing_enable({"use_reentrant": False})


def spare_inputs(model: nn.Module) -> None:
    """Take back that inputs have a gradient, which transformers and PEFT ask for beside `checkpoint_layers`.

    Only reentrant checkpoints need it; here the frozen vision tower would be differentiated for nothing.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.disable_input_require_grads()


def freeze_vision(model: nn.Module) -> None:
    """The vision tower is not trained: leave only the language model's weights trainable."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("visual" not in name)
