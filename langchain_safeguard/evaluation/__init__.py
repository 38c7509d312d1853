"""Measuring guards on labelled rows; the command is `langchain-safeguard evaluate`."""

from langchain_safeguard.evaluation.dataset import DatasetError, Row, read_rows
from langchain_safeguard.evaluation.metrics import Metrics, measure
from langchain_safeguard.evaluation.report import CategoryResult, FileResult, Report
from langchain_safeguard.evaluation.run import evaluate

__all__ = [
    "CategoryResult",
    "DatasetError",
    "FileResult",
    "Metrics",
    "Report",
    "Row",
    "evaluate",
    "measure",
    "read_rows",
]
