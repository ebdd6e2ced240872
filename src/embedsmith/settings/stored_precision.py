"""In which number formats files hold vectors."""

from enum import StrEnum


class StoredPrecision(StrEnum):
    """Number format of vectors in a file: those of `VectorPrecision`, and floats of half the bytes.

    `float16` is for keeping alone: what reads such a file computes in float32 again.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    UINT8 = "uint8"
    BINARY = "binary"
    UBINARY = "ubinary"
