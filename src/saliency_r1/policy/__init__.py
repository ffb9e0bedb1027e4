"""The policy: Qwen2.5-VL as a function from images and an instruction to text, with its token probabilities."""

from saliency_r1.policy.model import Policy, PolicyError, Prompt, Response

__all__ = ["Policy", "PolicyError", "Prompt", "Response"]
