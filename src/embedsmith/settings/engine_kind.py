"""Where the vectors of a corpus are computed."""

from enum import StrEnum


class EngineKind(StrEnum):
    """`local`: this process. `ray`: the machines of a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"
