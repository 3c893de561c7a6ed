"""Logs as key=value lines: one event, a few fields, nothing while nothing happens."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def fields(**values: Any) -> dict[str, Any]:
    """Return the structured fields of a log line: `log.info("released", extra=fields(round=name))`."""
    return {"fields": values}


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… logger=… msg="…" key=value …`, followed by the stack if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, plus the stack of an exception."""
        values = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        line = " ".join(f"{key}={_quoted(value)}" for key, value in values.items() if value is not None)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    @staticmethod
    def converter(seconds: float | None) -> Any:
        """Times are UTC."""
        return time.gmtime(seconds)


def configure(level: str = "INFO") -> None:
    """Log to stderr at that level; kopf only warns, since its own steps are no events of ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _quoted(value: Any) -> str:
    text = str(value)
    plain = text and not any(c in ' ="\\' or not c.isprintable() for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
