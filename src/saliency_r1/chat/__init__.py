"""Asking a server that speaks the OpenAI chat protocol: vLLM, `transformers serve`, or a commercial one."""

from saliency_r1.chat.client import ChatClient, Question, Reply, cost
from saliency_r1.chat.errors import BudgetError, ChatError

__all__ = ["BudgetError", "ChatClient", "ChatError", "Question", "Reply", "cost"]
