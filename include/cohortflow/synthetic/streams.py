"""Random numbers and identifiers that depend on the seed, the stream and the patient alone.

Philox is a counter-based generator (Salmon et al., SC 2011): the words of patient *i* stand at a fixed
counter, so any range of patients can be drawn in any order, in any chunk, with the same result.
Normal deviates come from integer sums, not from ``log`` or ``cos``, whose last bit differs between
processors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

__all__ = ["Ids", "Streams", "below", "normal", "uniform"]

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_WORDS_PER_COUNTER = 4
_SUM_MEAN = 131_070.0  # four 16-bit words: 4 * 65535 / 2
_SUM_SD = 37_837.2  # sqrt(4 * (65536**2 - 1) / 12)

_HEX = np.frombuffer(b"".join(b"%02x" % value for value in range(256)), dtype=np.uint8).reshape(256, 2)
_UUID_TEXT = 36
_DASHES = (8, 13, 18, 23)
_DIGITS = np.array([place for place in range(_UUID_TEXT) if place not in _DASHES])


@dataclass(frozen=True, slots=True)
class Streams:
    """Named streams of 64-bit words, one row of words per patient.

    Attributes:
        seed: The population's seed.
    """

    seed: int

    def words(self, stream: str, first: int, rows: int, width: int) -> Words:
        """Draw ``width`` words for each of the patients ``first .. first + rows - 1``.

        Returns:
            Array of shape ``(rows, width)``; a row depends on the seed, the stream and its patient only.
        """
        key = int.from_bytes(hashlib.blake2b(f"{self.seed}/{stream}".encode(), digest_size=16).digest())
        counters = -(-width // _WORDS_PER_COUNTER)
        source = np.random.Philox(key=key, counter=first * counters)
        raw: Words = source.random_raw(rows * counters * _WORDS_PER_COUNTER)
        return raw.reshape(rows, counters * _WORDS_PER_COUNTER)[:, :width]


def uniform(words: Words) -> Floats:
    """Return numbers of [0, 1) from the upper 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(words: Words) -> Floats:
    """Return deviates with mean 0 and standard deviation 1, none beyond 3.5 (sum of four uniforms)."""
    low = np.uint64(0xFFFF)
    total = (words & low) + ((words >> np.uint64(16)) & low) + ((words >> np.uint64(32)) & low)
    total += words >> np.uint64(48)
    deviates: Floats = (total.astype(np.float64) - _SUM_MEAN) / _SUM_SD
    return deviates


def below(words: Words, limit: int | npt.NDArray[np.integer]) -> Ints:
    """Return integers of ``0 .. limit - 1``; ``limit`` may be an array and stays below 2**31."""
    bound = np.asarray(limit, dtype=np.uint64)
    return (((words >> np.uint64(33)) * bound) >> np.uint64(31)).astype(np.int64)


def _mix(words: Words) -> Words:
    # The finaliser of SplitMix64: a bijection in which each input bit reaches each output bit.
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Ids:
    """Resource ids of patients and of what belongs to them, as 128-bit numbers.

    Attributes:
        words: Shape ``(patients, 2)``: the ids of the patients themselves.
    """

    words: Words

    @classmethod
    def of_patients(cls, streams: Streams, first: int, rows: int) -> Ids:
        """Return the ids of the patients ``first .. first + rows - 1``."""
        return cls(streams.words("id", first, rows, 2))

    def text(self) -> pl.Series:
        """Return the ids themselves as text."""
        return _to_text(self.words)

    def derive(self, kind: str, patient: Ints, sequence: Ints) -> pl.Series:
        """Return ids of resources of patients.

        Args:
            kind: Resource type.
            patient: Row of the patient each resource belongs to.
            sequence: Number of the resource within its patient and type.
        """
        salt = np.frombuffer(hashlib.blake2b(kind.encode(), digest_size=16).digest(), dtype="<u8")
        own = _mix(sequence.astype(np.uint64) + salt[0].astype(np.uint64))
        high = _mix(self.words[patient, 0] ^ own)
        low = _mix(self.words[patient, 1] + own * np.uint64(0x9E3779B97F4A7C15) + salt[1].astype(np.uint64))
        return _to_text(np.stack([high, low], axis=1))


def _to_text(words: Words) -> pl.Series:
    """Write 128-bit numbers as UUIDs of version 8 (RFC 9562: contents defined by the application)."""
    rows = len(words)
    octets = words.astype(">u8").view(np.uint8).reshape(rows, 16)
    octets[:, 6] = (octets[:, 6] & 0x0F) | 0x80
    octets[:, 8] = (octets[:, 8] & 0x3F) | 0x80
    text = np.full((rows, _UUID_TEXT), ord("-"), dtype=np.uint8)
    text[:, _DIGITS] = _HEX[octets].reshape(rows, 32)
    offsets = np.arange(0, (rows + 1) * _UUID_TEXT, _UUID_TEXT, dtype=np.int64)
    array = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text))
    return pl.Series(pl.from_arrow(array))
