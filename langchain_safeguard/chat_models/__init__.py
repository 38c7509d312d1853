"""Guarded chat models: the tightest wrapper there is."""

from langchain_safeguard.chat_models.guarded import GuardedChatModel, guard_model

__all__ = ["GuardedChatModel", "guard_model"]
