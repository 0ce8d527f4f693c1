"""TensorBoard's event files, read back by the protocol buffers and checksums of tensorboardX."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_tune.runtime.tfevents import config_record, head_record, scalars_record


def read_events(data: bytes) -> Iterator[Any]:
    """Yield the messages of a file; each checksum must be right."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    while data:
        length, check = struct.unpack("<QI", data[:12])
        content = data[12 : 12 + length]
        assert check == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked_crc32c(content),)
        yield Event.FromString(content)
        data = data[16 + length :]


def read_scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value by tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(path.read_bytes()):
        for each in event.summary.value:
            if each.WhichOneof("value") == "simple_value":
                found.setdefault(each.tag, []).append((event.step, each.simple_value))
    return found


def test_a_file_is_what_tensorboard_expects() -> None:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    scalars = {"ray/tune/score": 0.5, "ray/tune/größe": -1e300, "ray/tune/inf": math.inf}
    config: dict[str, Any] = {"lr": 1e-3, "deep/on": True, "act": "relu" * 50}
    records = (head_record(7.5), config_record(8.5, config), scalars_record(9.5, 300, scalars))
    head, row, result = read_events(b"".join(records))
    assert (head.wall_time, head.file_version) == (7.5, "brain.Event:2")
    (session,) = row.summary.value
    assert (session.tag, session.metadata.plugin_data.plugin_name) == ("_hparams_/session_start_info", "hparams")
    start = HParamsPluginData.FromString(session.metadata.plugin_data.content).session_start_info
    settings = {name: getattr(each, each.WhichOneof("kind")) for name, each in start.hparams.items()}
    assert (settings, row.wall_time) == (config, 8.5)
    assert (result.wall_time, result.step) == (9.5, 300)
    assert {each.tag: each.simple_value for each in result.summary.value} == scalars | {"ray/tune/größe": -math.inf}


def test_a_step_may_be_anything() -> None:
    for step in (0, 127, 128, 2**40, -1):
        (event,) = read_events(scalars_record(1.0, step, {}))
        assert event.step == step
