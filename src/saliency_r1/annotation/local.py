"""The annotator in this process: a vision-language model from a Hugging Face folder or hub name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from saliency_r1.annotation import prompting
from saliency_r1.annotation.interface import AnnotationError, Proposal, Try


class LocalAnnotator:
    """Asks a model with a chat template, one sample at a time, greedily at first and sampling at further attempts.

    They are sampled at `temperature`, at 0 greedy too. Of the checkpoint's generation config the ends of an answer are
    all that is taken over: the near-greedy temperature of some would give every attempt the same answer.

    Raises `AnnotationError` for a model that is not there, sees no images or has no such template.
    """

    def __init__(
        self, model: str, answer_tokens: int, device: torch.device, dtype: torch.dtype, temperature: float = 0.7
    ) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

        try:
            self.processor = AutoProcessor.from_pretrained(model)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            why = " ".join(str(error).split())[:300]
            raise AnnotationError(
                f"annotate.model = {model!r} cannot be read, expected a vision-language model, its folder or name "
                f"on the hub: {why}"
            ) from None
        network, about = loaded
        if missing := about["missing_keys"]:  # transformers has drawn them at random
            raise AnnotationError(
                f"annotate.model = {model!r} lacks {len(missing)} of its weights, such as {min(missing)}"
            )
        if not getattr(self.processor, "chat_template", None):
            raise AnnotationError(
                f"annotate.model = {model!r} has no chat template (chat_template.jinja), and nobody knows how to ask "
                "it; name an instruction-tuned one"
            )
        own = network.generation_config
        network.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
        self.model = network.to(device).eval()
        self.answer_tokens = answer_tokens
        self.temperature = temperature

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """Proposals in order; an answer that is no annotation is a fault."""
        return [prompting.read(self._answer(one), one.subject) for one in tries]

    @torch.inference_mode()
    def _answer(self, one: Try) -> str:
        images = prompting.outlined(one.subject)
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": prompting.prompt(one)}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        # The template has written the special tokens; the tokenizer would put its first one in front again.
        encoded = self.processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
        inputs = encoded.to(self.model.device)
        torch.manual_seed(one.seed[0] + one.number)
        how: dict[str, Any] = {"do_sample": False}
        if one.number > 0 and self.temperature > 0:  # from the whole distribution
            how = {"do_sample": True, "temperature": self.temperature, "top_p": 1.0, "top_k": 0}
        output = self.model.generate(
            **inputs, **how, max_new_tokens=self.answer_tokens, repetition_penalty=1.0, num_beams=1
        )
        return str(self.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
