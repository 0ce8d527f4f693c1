"""How a key of ``[allocation]`` is typed on the command line; every message that suggests one says it so."""

from __future__ import annotations

__all__ = ["OPTIONS", "how_to_set"]

OPTIONS = (
    "site", "nodes", "min_nodes", "gpus_per_node", "cpus_per_node", "memory", "time", "partition", "qos", "account",
    "constraint", "exclude",
)  # fmt: skip
"""The keys that have an option of their own; any other is reached with ``--set``."""


def how_to_set(key: str, value: object = None) -> str:
    """Return ``--nodes 4`` or ``--set allocation.grace=300``; without a value, what stands before it."""
    if key in OPTIONS:
        option = f"--{key.replace('_', '-')}"
        return option if value is None else f"{option} {value}"
    return f"--set allocation.{key}=" + ("…" if value is None else str(value))
