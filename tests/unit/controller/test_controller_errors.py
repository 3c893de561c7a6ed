"""Responses of the API server become errors that say what to do next."""

from __future__ import annotations

import pytest

from concordat.controller.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unavailable,
    from_response,
)
from concordat.errors import Transient


@pytest.mark.parametrize(
    ("status", "reason", "type_"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Unavailable),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", ApiError),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (409, "", Conflict),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
def test_mapping(status: int, reason: str, type_: type[ApiError]) -> None:
    error = from_response("POST /api/v1/pods", status, reason, "server's words", 3.0)
    assert type(error) is type_
    assert error.status == status
    assert str(error) == f"POST /api/v1/pods: {status} {reason}: server's words"
    assert isinstance(error, Transient) == (type_ is Unavailable)


def test_retry_after_is_kept() -> None:
    error = from_response("GET /", 429, "TooManyRequests", "", 3.0)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 3.0


def test_a_used_up_quota_is_told_from_a_refusal() -> None:
    """Finding 12."""
    words = 'jobs "r1" is forbidden: exceeded quota: compute, requested: count/jobs.batch=1, used: 1, limited: 1'
    assert type(from_response("POST /", 403, "Forbidden", words, None)) is QuotaExceeded
