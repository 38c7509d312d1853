"""Checking many texts at once: whole files, and batches of data frames."""

from langchain_safeguard.bulk.check_batch import CheckBatch
from langchain_safeguard.bulk.check_file import Summary, check_file

__all__ = ["CheckBatch", "Summary", "check_file"]
