"""What can be wrong with a statement."""


class StatementError(Exception):
    """A statement or key that must not be relied on."""


class SignatureInvalid(StatementError):
    """No accepted key made the signature."""


class MalformedStatement(StatementError):
    """The bytes are not a statement of the accepted form."""
