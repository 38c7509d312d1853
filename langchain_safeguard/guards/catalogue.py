"""All guard models that are known by name, a line per family."""

from __future__ import annotations

from langchain_safeguard.guards import (
    aegis,
    classifier_cards,
    embedded,
    gpt_oss_safeguard,
    granite_guardian,
    kanana,
    ko_safeguard,
    llama_guard,
    md_judge,
    nemotron,
    nemotron_reasoning,
    poly_guard,
    qwen3_guard,
    safety_llama,
    shield_gemma,
    wild_guard,
)
from langchain_safeguard.guards.card import GuardCard

CARDS: tuple[GuardCard, ...] = (
    *embedded.CARDS,
    *llama_guard.CARDS,
    *ko_safeguard.CARDS,
    *safety_llama.CARDS,
    *shield_gemma.CARDS,
    *wild_guard.CARDS,
    *granite_guardian.CARDS,
    *qwen3_guard.CARDS,
    *aegis.CARDS,
    *nemotron.CARDS,
    *nemotron_reasoning.CARDS,
    *md_judge.CARDS,
    *kanana.CARDS,
    *poly_guard.CARDS,
    *gpt_oss_safeguard.CARDS,
    *classifier_cards.CARDS,
)
