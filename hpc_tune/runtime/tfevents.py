"""Records of TensorBoard's event files, of tensorboardX's messages and checksums.

Its writers are not used: each has a thread, and begins its file anew, for as many trials as are paused at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import hparams

__all__ = ["config_record", "head_record", "scalars_record"]


def head_record(time: float) -> bytes:
    """Return the first record of a file."""
    return _record(Event(wall_time=time, file_version="brain.Event:2"))


def scalars_record(time: float, step: int, scalars: Mapping[str, float]) -> bytes:
    """Return the record of some numbers by their tags."""
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    return _record(Event(wall_time=time, step=step, summary=Summary(value=values)))


def config_record(time: float, config: Mapping[str, bool | float | str]) -> bytes:
    """Return the record of a trial's hyperparameters, a row of TensorBoard's table."""
    _, session_start, _ = hparams(dict(config), {})
    return _record(Event(wall_time=time, summary=session_start))


def _record(event: Event) -> bytes:
    """Return a message with its length and the checksums of both."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return b"".join((length, next(checks), content, next(checks)))
