"""The policy: a multimodal language model as a function from images and an instruction to text, with probabilities."""

from saliency_r1.policy.errors import PolicyError
from saliency_r1.policy.model import Policy, Prompt, Response

__all__ = ["Policy", "PolicyError", "Prompt", "Response"]
