"""What to do about what a guard saw: rules per category and side."""

from langchain_safeguard.policy.policy import DEFAULT_MESSAGE, Fired, Policy, risk
from langchain_safeguard.policy.rule import (
    Action,
    Rule,
    probability,
    read_categories,
    read_sides,
)

__all__ = [
    "DEFAULT_MESSAGE",
    "Action",
    "Fired",
    "Policy",
    "Rule",
    "probability",
    "read_categories",
    "read_sides",
    "risk",
]
