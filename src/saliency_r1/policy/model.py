"""A policy: load, encode prompts, generate, and log-probabilities on the distribution that was sampled from.

Any of `families.FAMILIES`; nothing here is of one of them alone. Two traps are closed once for all callers. Published
checkpoints carry a generation config that changes sampling (temperature, repetition penalty), so every sampling value
is passed explicitly and neutral. And a sampled image token would break the next forward pass, so the ids of
`suppressed` are excluded when sampling *and* masked before the softmax of `logprobs`: confidence is measured on the
distribution that was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
)

from saliency_r1.policy.errors import PolicyError
from saliency_r1.policy.exported import parts
from saliency_r1.policy.families import family_of
from saliency_r1.policy.network import checkpoint_layers, freeze_vision, put_on, read_network, spare_inputs
from saliency_r1.policy.scores import token_scores

OF_TOKENS = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}  # what `collate` makes anew
IGNORED = -100


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt: `input_ids` (tokens,), and what the processor made of its images.

    `inputs` has tensors by the names the model knows them under, empty without images. Those of several prompts are
    joined along their first dimension: patches, tiles or images, as the family has it.
    """

    input_ids: Tensor
    inputs: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.input_ids.nbytes + sum(tensor.nbytes for tensor in self.inputs.values())


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
    """A model of one of the families with its processor. `model` is the plain or the PEFT-wrapped network.

    Raises `PolicyError` for a model of another type, a tokenizer that lacks a token of the family or cannot write the
    tags, or a processor without a chat template.
    """

    def __init__(self, model: Any, processor: Any, device: str | torch.device = "cpu", autocast: bool = False) -> None:
        self.model = model.to(device)
        self.autocast = autocast
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.device = torch.device(device)
        config = self.model.config
        self.family = family_of(config.model_type, config.name_or_path)
        known = self.tokenizer.get_vocab()
        if lacking := [token for token in (self.family.end, self.family.pad) if token not in known]:
            raise PolicyError(f"{config.name_or_path}: the tokenizer has no {lacking[0]}, which {self.family.name} has")
        if "<rg>" not in self.tokenizer.decode(self.tokenizer("<rg>", add_special_tokens=False).input_ids):
            raise PolicyError(f"{config.name_or_path}: the tokenizer cannot write <rg>; is its tokenizer.json there?")
        if not getattr(processor, "chat_template", None):
            raise PolicyError(
                f"{config.name_or_path} has no chat template (chat_template.jinja), and nobody knows how to ask it; "
                "take the instruction-tuned model, or put the template of its family there"
            )
        self.end_id: int = known[self.family.end]
        self.pad_id: int = known[self.family.pad]
        self.image_id: int = config.image_token_id
        self.suppressed = sorted({self.image_id, *(known[token] for token in self.family.never if token in known)})

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
        training. `min_pixels` and `max_pixels` bound an image as far as the family lets them (`Family.limit`). Raises
        `PolicyError` for a model of no known family and for an adapter of another base.
        """
        base, adapter = parts(folder, adapter)  # the processor is the folder's own, whatever lies under it
        family = family_of(PreTrainedConfig.get_config_dict(base)[0].get("model_type"), base)
        try:
            processor = AutoProcessor.from_pretrained(folder)
        except ImportError as error:
            raise PolicyError(f"{folder}: the processor of {family.name} needs more packages: {error}") from error
        if min_pixels is not None and max_pixels is not None and family.limit:
            family.limit(processor.image_processor, min_pixels, max_pixels)
        lora = adapter if adapter is not None and (Path(adapter) / "adapter_config.json").exists() else None
        weights = base if adapter is None or lora else adapter
        model = read_network(weights, dtype, attention)
        if gradient_checkpointing:
            checkpoint_layers(model)
        if lora:
            model = put_on(model, Path(lora), trainable, Path(base))
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
        for tag in self.family.reasoning:  # a template may open the reasoning: an answer is to hold all of it
            text = text.removesuffix(f"<{tag}>\n")
        # The template has written the special tokens; the tokenizer would put its first one in front again.
        encoded = self.processor(
            text=[text], images=list(images) or None, return_tensors="pt", add_special_tokens=False
        )
        inputs = {name: tensor for name, tensor in encoded.items() if name not in OF_TOKENS}
        return Prompt(encoded["input_ids"][0], inputs)

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
        }
        if self.family.marks:
            batch[self.family.marks] = (input_ids == self.image_id).long()
        for name in dict.fromkeys(name for prompt in prompts for name in prompt.inputs):
            batch[name] = joined([prompt.inputs[name] for prompt in prompts if name in prompt.inputs])
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


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other along the first dimension, the other ones filled up with zeros to the largest."""
    sizes = [max(own) for own in zip(*(part.shape[1:] for part in parts))]

    def filled(part: Tensor) -> Tensor:
        room = [(0, size - own) for size, own in zip(sizes, part.shape[1:])]
        return nn.functional.pad(part, [amount for pair in reversed(room) for amount in pair])

    return torch.cat([part if list(part.shape[1:]) == sizes else filled(part) for part in parts])
