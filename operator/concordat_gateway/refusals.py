"""Why the gateway gives no grant, told apart by what the agent does next. The message is one for people."""

from __future__ import annotations


class Refused(Exception):
    """There is no grant. `code` and `status` are part of the API."""

    status = 403
    code = "REFUSED"


class Denied(Refused):
    """What the site shows does not hold, or it may not take part: asking again does not help."""


class Stale(Refused):
    """The nonce is used, too old, or of another process of the gateway: ask for another."""

    status = 409
    code = "STALE_NONCE"


class NotYet(Refused):
    """Something is not known yet, or out of reach: ask again later."""

    status = 503
    code = "NOT_YET"


class Malformed(Refused):
    """The request cannot be read."""

    status = 400
    code = "MALFORMED"
