"""Answers of the API server that refuse a request."""

from __future__ import annotations

from concordat.errors import Transient

_QUOTA = "exceeded quota"
"""How the quota admission plugin words its refusal; the status has no field that says so."""


class ApiError(Exception):
    """The API server refused a request. The message names the request and the server's own words."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(ApiError):
    """404: the object, or its kind, does not exist."""


class Conflict(ApiError):
    """409: the object is not the one (UID) or not the version (resourceVersion) the caller looked at."""


class AlreadyExists(ApiError):
    """409 on create: an object of that name exists. Callers get it and compare the owner's UID."""


class Forbidden(ApiError):
    """403: RBAC or admission denies it; trying again alone does not help."""


class QuotaExceeded(Forbidden):
    """403 because a ResourceQuota is used up: it helps to wait until something else ends."""


class Invalid(ApiError):
    """400 or 422: the server does not accept the object."""


class Unavailable(Transient, ApiError):
    """The API server could not be reached, does not know us (401), is overloaded (429) or failed (5xx).

    A token that was just rotated gives 401 until it is read again.
    """

    def __init__(self, message: str, status: int = 0, retry_after: float | None = None) -> None:
        Transient.__init__(self, message, retry_after)
        self.status = status


def from_response(request: str, status: int, reason: str, message: str, retry_after: float | None) -> ApiError:
    """Return the error for a response that is not 2xx; `reason` is the `reason` of a Kubernetes Status object."""
    text = f"{request}: {status} {reason}: {message}"
    if status == 409:
        return AlreadyExists(text, status) if reason == "AlreadyExists" else Conflict(text, status)
    if status in (401, 429) or status >= 500:
        return Unavailable(text, status, retry_after)
    if status == 403:
        return QuotaExceeded(text, status) if _QUOTA in message else Forbidden(text, status)
    if status == 404:
        return NotFound(text, status)
    if status in (400, 422):
        return Invalid(text, status)
    return ApiError(text, status)
