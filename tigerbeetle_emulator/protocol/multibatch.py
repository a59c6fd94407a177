"""Bodies that carry several batches: all elements back to back, then a trailer of their counts.

The trailer is an array of u16 read from the end: the number of batches, then the element count of
the first batch, of the second, and so on. It is padded in front with 0xff to a multiple of the
element size.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .aegis import Buffer

BATCHES_MAX = 0xFFFE


class TrailerError(ValueError):
    """The body is no well-formed multi-batch body."""


def trailer_size(element_size: int, batches: int) -> int:
    """Bytes of the trailer of `batches` batches of elements of `element_size` bytes."""
    return -(-(2 * batches + 2) // element_size) * element_size


def decode(body: Buffer, element_size: int) -> list[memoryview]:
    """The batches of a body, in order. Raises TrailerError."""
    view = memoryview(body)
    if len(view) < max(2, element_size) or len(view) % element_size:
        raise TrailerError(f"no room for a trailer in {len(view)} bytes")
    (batches,) = struct.unpack_from("<H", view, len(view) - 2)
    if not 1 <= batches <= BATCHES_MAX:
        raise TrailerError(f"batch count {batches}")
    trailer = trailer_size(element_size, batches)
    if trailer > len(view):
        raise TrailerError(f"trailer of {trailer} bytes in a body of {len(view)}")
    padding = view[len(view) - trailer : len(view) - 2 - 2 * batches]
    if padding != b"\xff" * len(padding):
        raise TrailerError("padding is not 0xff")
    counts = struct.unpack_from(f"<{batches}H", view, len(view) - 2 - 2 * batches)
    if sum(counts) * element_size != len(view) - trailer:
        raise TrailerError("element counts do not add up to the body")
    batches_found, start = [], 0
    for count in reversed(counts):
        end = start + count * element_size
        batches_found.append(view[start:end])
        start = end
    return batches_found


def encode(batches: Sequence[Buffer], element_size: int) -> bytes:
    """The body that contains the results of all batches."""
    counts = [len(batch) // element_size for batch in reversed(batches)]
    words = struct.pack(f"<{len(counts) + 1}H", *counts, len(counts))
    return b"".join([*batches, words.rjust(trailer_size(element_size, len(counts)), b"\xff")])
