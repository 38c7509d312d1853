"""Guarding retrieval: what a retriever finds is checked before a model reads it."""

from langchain_safeguard.documents.document_guard import DocumentGuard
from langchain_safeguard.documents.guarded_retriever import GuardedRetriever, guard_retriever

__all__ = ["DocumentGuard", "GuardedRetriever", "guard_retriever"]
