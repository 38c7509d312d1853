"""The table from our categories to OpenAI's, held against the official package's types."""

from __future__ import annotations

import typing

import pytest

pytest.importorskip("fastapi")

from openai.types import moderation, moderation_model

from langchain_safeguard import Category
from langchain_safeguard.server.categories import OPENAI_CATEGORIES, TO_OPENAI
from langchain_safeguard.server.openai_api import OPENAI_MODELS


def test_the_names_are_those_of_the_official_client() -> None:
    fields = moderation.CategoryScores.model_fields
    assert {*OPENAI_CATEGORIES} == {field.alias or name for name, field in fields.items()}
    assert {*OPENAI_MODELS} == {*typing.get_args(moderation_model.ModerationModel)}


def test_every_category_is_mapped() -> None:
    assert {*TO_OPENAI} == {*Category}
    assert {name for names in TO_OPENAI.values() for name in names} <= {*OPENAI_CATEGORIES}


def test_what_is_reported_by_nothing_is_what_the_table_says() -> None:
    covered = {name for names in TO_OPENAI.values() for name in names}
    finer = {
        "harassment/threatening",
        "hate/threatening",
        "self-harm/instructions",
        "self-harm/intent",
        "violence/graphic",
    }
    assert {*OPENAI_CATEGORIES} - covered == finer


def test_same_name_means_same_hazard() -> None:
    for category in Category:
        if category.value in OPENAI_CATEGORIES:
            assert TO_OPENAI[category] == (category.value,)
