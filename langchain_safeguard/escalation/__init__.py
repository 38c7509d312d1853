"""Who is asked when a policy escalates: an ordered list of handlers, until one decides."""

from langchain_safeguard.escalation.base import Escalation, Handler, Resolution
from langchain_safeguard.escalation.human_review import HumanReview
from langchain_safeguard.escalation.second_opinion import SecondOpinion
from langchain_safeguard.escalation.signature import verify_signature
from langchain_safeguard.escalation.webhook import Webhook

__all__ = [
    "Escalation",
    "Handler",
    "HumanReview",
    "Resolution",
    "SecondOpinion",
    "Webhook",
    "verify_signature",
]
