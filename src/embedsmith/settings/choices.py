"""The words that settings and options take, apart from the settings: `--help` needs no more than these."""

from enum import StrEnum


class Pooling(StrEnum):
    """How a text's hidden states become one vector.

    `last`: the state at the last token, the end token (the paper). `mean`: the average over all tokens.
    `weighted_mean`: the average weighted by position 1, 2, 3 ... (SGPT, Muennighoff 2022: later tokens of a causal
    model saw more). `concat`: last and mean side by side, twice as wide (Roth et al. 2025). Where a prompt gives the
    text twice, averages are over the second copy and what follows it.
    """

    LAST = "last"
    MEAN = "mean"
    WEIGHTED_MEAN = "weighted_mean"
    CONCAT = "concat"


class Side(StrEnum):
    """Which prompt a text gets: queries ask, documents are found. Both are alike where there is no `query_prompt`."""

    QUERY = "query"
    DOCUMENT = "document"


class Precision(StrEnum):
    """Number format of the frozen backbone; adapter weights are float32 always.

    `auto` takes bf16 where the machine multiplies bf16 matrices in hardware, else fp32.
    """

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


class VectorPrecision(StrEnum):
    """Number format of the vectors that are given out; sentence-transformers calls it `precision`.

    `int8` and `uint8` hold 256 steps a dimension, `binary` and `ubinary` the signs, eight to a byte.
    """

    FLOAT32 = "float32"
    INT8 = "int8"
    UINT8 = "uint8"
    BINARY = "binary"
    UBINARY = "ubinary"


class Quantization(StrEnum):
    """How the frozen base's linear layers are stored: whole, or in 8 or 4 bits (QLoRA)."""

    NONE = "none"
    EIGHT_BIT = "8bit"
    FOUR_BIT = "4bit"


class Loss(StrEnum):
    """What is minimised; `training/loss.py` has the formulas.

    `auto` takes `info_nce` for triplets and pairs, `cosent` for scored pairs. `angle` is AnglE's, for scored pairs.
    `mntp` is no embedding loss: it adapts a model to attention both ways, as the stage before one (LLM2Vec).
    """

    AUTO = "auto"
    INFO_NCE = "info_nce"
    COSENT = "cosent"
    ANGLE = "angle"
    MNTP = "mntp"


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


class EngineKind(StrEnum):
    """`local`: this process. `ray`: the machines of a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


class StoreKind(StrEnum):
    """Where vectors are searched: `auto` is LanceDB where it is installed and can hold them, else the shards."""

    AUTO = "auto"
    LANCEDB = "lancedb"
    SHARDS = "shards"


class SearchKind(StrEnum):
    """How the nearest candidates are found."""

    AUTO = "auto"
    EXACT = "exact"
    INDEX = "index"


class CandidatePool(StrEnum):
    """Where candidates come from."""

    POSITIVES = "positives"
    NEGATIVES = "negatives"
    ANCHORS = "anchors"
    CORPUS = "corpus"


class NegativeChoice(StrEnum):
    """Which of the texts that the rules leave."""

    TOP = "top"
    RANDOM = "random"


class OwnNegatives(StrEnum):
    """What becomes of the negatives that rows have."""

    KEEP = "keep"
    REPLACE = "replace"


class TooFew(StrEnum):
    """What becomes of a row with fewer mined negatives than wanted."""

    KEEP = "keep"
    DROP = "drop"
