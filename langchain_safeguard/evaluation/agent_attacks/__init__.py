"""Measuring guards on agents that are attacked through the results of their tools.

The command is `langchain-safeguard evaluate-agents`. Needs the extra `agents`.
"""

from langchain_safeguard.errors import MissingExtraError

try:
    from langchain_safeguard.evaluation.agent_attacks.agent import (
        ObedientModel,
        Outcome,
        arun_case,
        run_case,
    )
    from langchain_safeguard.evaluation.agent_attacks.defenses import DEFENSES
    from langchain_safeguard.evaluation.agent_attacks.run import evaluate_agents
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langchain", "langgraph"):
        raise
    raise MissingExtraError("langchain", "agents") from error

from langchain_safeguard.evaluation.agent_attacks.case_file import read_cases
from langchain_safeguard.evaluation.agent_attacks.cases import Case
from langchain_safeguard.evaluation.agent_attacks.report import AgentReport, CaseResult, Share

__all__ = [
    "DEFENSES",
    "AgentReport",
    "Case",
    "CaseResult",
    "ObedientModel",
    "Outcome",
    "Share",
    "arun_case",
    "evaluate_agents",
    "read_cases",
    "run_case",
]
