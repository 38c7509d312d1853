"""Examples for the OpenAPI documentation."""

from __future__ import annotations

from typing import Any

from fastapi.openapi.models import Example

MODERATIONS: dict[str, Example] = {
    "text": {"summary": "One text", "value": {"input": "How do I bake bread?"}},
    "texts": {
        "summary": "Several texts",
        "value": {
            "model": "omni-moderation-latest",
            "input": ["How do I bake bread?", "빵을 어떻게 굽나요?"],
        },
    },
    "parts": {
        "summary": "A text with an image",
        "value": {
            "input": [
                {"type": "text", "text": "What is on this picture?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/picture.png"}},
            ]
        },
    },
    "answer": {
        "summary": "A model's answer, under a named policy",
        "value": {"input": "Mix flour and water.", "side": "output", "policy": "default"},
    },
}
GUARD: dict[str, Example] = {
    "question": {
        "summary": "What a user asks",
        "value": {"messages": [{"role": "user", "content": "How do I bake bread?"}]},
    },
    "answer": {
        "summary": "What a model answers",
        "value": {
            "messages": [
                {"role": "user", "content": "How do I bake bread?"},
                {"role": "assistant", "content": "Mix flour, water, salt and yeast."},
            ],
            "side": "output",
        },
    },
}


def _error(description: str, code: str, message: str, kind: str) -> dict[str, Any]:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {
        "description": description,
        "content": {"application/json": {"example": {"error": error}}},
    }


_WRONG = "invalid_request_error"
ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("The request is wrong.", "empty_input", "input: give at least one text.", _WRONG),
    401: _error("The API key is wrong.", "invalid_api_key", "Incorrect API key provided.", _WRONG),
    404: _error(
        "No such guard or policy.",
        "policy_not_found",
        "Unknown policy; this server has: default.",
        _WRONG,
    ),
    413: _error(
        "The body is too large.",
        "body_too_large",
        "The body has more than 8388608 bytes; send fewer or shorter texts per request.",
        _WRONG,
    ),
    503: _error(
        "Busy, not ready, or too late; `Retry-After` says when to try again.",
        "overloaded",
        "The server is checking 64 requests already; try again.",
        "server_error",
    ),
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: _error(
        "Not ready yet.",
        "not_ready",
        "The guards are being loaded; try again in a few seconds.",
        "server_error",
    )
}
