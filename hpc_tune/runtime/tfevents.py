"""TensorBoard's event files: records with checksums, each a protocol buffer that is written here by hand.

The package that Ray uses for them imports PyTorch where it is installed, which takes a driver seconds. The messages
are TensorFlow's ``Event`` and ``Summary``, and the ``HParamsPluginData`` of TensorBoard's table of hyperparameters.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

__all__ = ["config_record", "head_record", "scalars_record"]

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, reflected."""
_HPARAMS = "_hparams_/session_start_info"


def head_record(time: float) -> bytes:
    """Return the first record of a file."""
    return _record(_event(time, _text(3, "brain.Event:2")))


def scalars_record(time: float, step: int, scalars: Mapping[str, float]) -> bytes:
    """Return the record of some numbers by their tags."""
    values = (_field(1, _text(1, tag) + _key(2, 5) + _single(value)) for tag, value in scalars.items())
    return _record(_event(time, _key(2, 0) + _varint(step % 2**64) + _field(5, b"".join(values))))


def config_record(time: float, config: Mapping[str, bool | float | str]) -> bytes:
    """Return the record of a trial's hyperparameters, a row of TensorBoard's table."""
    entries = (_field(1, _text(1, name) + _field(2, _value(value))) for name, value in config.items())
    start = b"".join(entries) + _key(5, 1) + struct.pack("<d", time)
    plugin = _text(1, "hparams") + _field(2, _field(3, start))
    summary = _field(1, _text(1, _HPARAMS) + _field(9, _field(1, plugin)))
    return _record(_event(time, _field(5, summary)))


def _event(time: float, rest: bytes) -> bytes:
    return _key(1, 1) + struct.pack("<d", time) + rest


def _value(value: bool | float | str) -> bytes:
    """Return a ``google.protobuf.Value``."""
    if isinstance(value, bool):
        return _key(4, 0) + _varint(value)
    return _text(3, value) if isinstance(value, str) else _key(2, 1) + struct.pack("<d", value)


def _single(value: float) -> bytes:
    """Return a number in four bytes; one that is too large for them becomes infinite."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


def _key(number: int, kind: int) -> bytes:
    """Return what stands before a field: 0 a varint, 1 eight bytes, 2 a length, 5 four bytes."""
    return _varint(number << 3 | kind)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _field(number: int, content: bytes) -> bytes:
    return _key(number, 2) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode(errors="backslashreplace"))


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return b"".join((length, _checksum(length), content, _checksum(content)))


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 - the remainder of a division
        yield value


_REMAINDERS = tuple(_table())


def _checksum(content: bytes) -> bytes:
    """Return the masked CRC-32C of a record's part."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _REMAINDERS[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
