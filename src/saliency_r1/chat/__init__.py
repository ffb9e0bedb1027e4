"""Asking a server that speaks the OpenAI chat protocol: vLLM, `transformers serve`, or a commercial one."""

from saliency_r1.chat.client import ChatClient, ChatError, Question, Reply

__all__ = ["ChatClient", "ChatError", "Question", "Reply"]
