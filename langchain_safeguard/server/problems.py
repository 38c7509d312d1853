"""Errors as OpenAI's API spells them: what is wrong and what to do, never what was sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import responses
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi import HTTPException as FastAPIHTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from langchain_safeguard.errors import UnreadableInputError

_PLAIN = re.compile(r"[A-Za-z_][\w/-]{0,39}", re.ASCII)
"""What may be repeated of the names of a body's fields: nobody's prose."""


class ApiError(HTTPException):
    """A request that is answered with an error.

    Attributes:
        status_code: The HTTP status.
        detail: What is wrong and what to do; never holds what the client sent as text.
        code: A short name of the error, for programs.
        param: Which field of the request is wrong, where one is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Store."""
        super().__init__(status, message, headers)
        self.code = code
        self.param = param


CLOSE = {"connection": "close"}
"""For answers to requests whose body was not read: what follows on the connection is no request."""


def too_busy(
    code: str, message: str, *, headers: Mapping[str, str] = MappingProxyType({})
) -> ApiError:
    """Return the error for "later"; most clients read `Retry-After` and try again."""
    return ApiError(503, code, message, headers={"retry-after": "1", **headers})


def response_to(error: HTTPException) -> JSONResponse:
    """Spell an error."""
    status = error.status_code
    content = {
        "error": {
            "message": error.detail,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": getattr(error, "param", None),
            "code": getattr(error, "code", None),
        }
    }
    return JSONResponse(content, status, error.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer with this shape whatever goes wrong in an application's routes."""

    async def on_http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return response_to(error if isinstance(error, ApiError) else _of_framework(error))

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return response_to(_of_validation(error.errors()))

    async def on_unreadable(_: Request, error: Exception) -> JSONResponse:
        return response_to(ApiError(400, "unreadable_input", str(error), param="messages"))

    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(UnreadableInputError, on_unreadable)


def _of_framework(error: HTTPException) -> ApiError:
    if isinstance(error, FastAPIHTTPException) and error.status_code != 400:
        # Not of the framework itself: a route that was added says more than we know.
        code = responses.get(error.status_code, "error").lower().replace(" ", "_")
        return ApiError(error.status_code, code, str(error.detail), headers=error.headers)
    code, message = {
        400: ("invalid_json", "The body is no JSON text in UTF-8."),
        404: ("not_found", "There is nothing at this address; /openapi.json tells what there is."),
        405: ("method_not_allowed", "This address does not take this method; see /openapi.json."),
    }.get(error.status_code, ("error", f"The request failed ({error.status_code})."))
    return ApiError(error.status_code, code, message, headers=error.headers)


def _of_validation(errors: Any) -> ApiError:
    """Say what is wrong with the first field; the values that stand there are not repeated."""
    first = errors[0]
    place = [*first["loc"]]
    if first["type"] == "json_invalid":
        at = place[-1] if isinstance(place[-1], int) else 0
        message = f"The body is no JSON: {first['ctx']['error']}, at character {at}."
        return ApiError(400, "invalid_json", message)
    if place and place[0] in ("body", "query", "path"):
        place = place[1:]
    param = ".".join(map(_name, place)) or None
    if first["type"] == "missing" and param is None:
        return ApiError(400, "invalid_json", "The body is empty; send a JSON object.")
    if first["type"] == "extra_forbidden":
        return ApiError(400, "unknown_parameter", f"Unknown parameter: {param}.", param=param)
    message = f"{param or 'body'}: {first['msg'].removeprefix('Value error, ')}."
    return ApiError(400, "invalid_value", message, param=param)


def _name(part: object) -> str:
    text = str(part)
    return text if isinstance(part, int) or _PLAIN.fullmatch(text) else "(a name not shown)"
