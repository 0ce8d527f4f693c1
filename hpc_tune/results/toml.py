"""A config as TOML, ready to stand in an experiment file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["as_toml", "nested", "toml_value"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(config: Mapping[str, Any], table: str = "space") -> str:
    """Return a config as the table ``[space]``, nested ones below it; what TOML cannot say becomes a comment."""
    return "\n".join(_table(config, table)) + "\n"


def _table(config: Mapping[str, Any], name: str) -> Iterator[str]:
    yield f"[{name}]"
    tables = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            tables[key] = value
        elif (text := toml_value(value)) is None:
            yield f"# {_key(key)}: {json.dumps(value, default=str)} cannot be written in TOML"
        else:
            yield f"{_key(key)} = {text}"
    for key, inner in tables.items():
        yield ""
        yield from _table(inner, f"{name}.{_key(key)}")


def _key(key: Any) -> str:
    return str(key) if _BARE.fullmatch(str(key)) else _text(str(key))


def toml_value(value: Any) -> str | None:
    """Return a value as TOML on one line; None for what TOML cannot say."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # TOML, too, says inf and nan
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        pairs = [(_key(key), toml_value(inner)) for key, inner in value.items()]
        return (
            None if any(text is None for _, text in pairs) else "{ " + ", ".join(f"{k} = {v}" for k, v in pairs) + " }"
        )
    if isinstance(value, list | tuple):
        texts = [toml_value(inner) for inner in value]
        return None if None in texts else "[" + ", ".join(text for text in texts if text) + "]"
    return None


def _text(text: str) -> str:
    """Quote a text as JSON does, except for what TOML does not take: lone surrogates and a bare DEL."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose keys are joined by ``/`` as nested tables."""
    config: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split("/")
        inner = config
        for key in above:
            deeper = inner.setdefault(key, {})
            inner = deeper if isinstance(deeper, dict) else {}
        inner[last] = value
    return config
