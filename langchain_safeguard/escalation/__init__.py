"""Who is asked when a policy escalates: an ordered list of handlers, until one decides."""

from langchain_safeguard.escalation.base import Escalation, Handler, Resolution
from langchain_safeguard.escalation.human_review import HumanReview
from langchain_safeguard.escalation.second_opinion import SecondOpinion

__all__ = ["Escalation", "Handler", "HumanReview", "Resolution", "SecondOpinion"]
