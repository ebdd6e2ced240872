"""Faulty results files, ranges and kept vectors."""

from tests.faults.fault import Fault, both, cut, fifo, folder, link, put, put_safetensors, remove, set_json

COMPARE = "compare results.json of-base.json"
SIMILARITIES = "results.similarities.safetensors"
RANGES = "encode base texts.txt --out x.npy --vector-precision int8 --ranges vectors.ranges.json"
WRITE = "embedsmith evaluate"

FAULTS = [
    Fault("results that are no JSON", COMPARE, "results.json", WRITE, put("results.json", "{")),
    Fault("results that are a list", COMPARE, "results.json", WRITE, put("results.json", "[]")),
    Fault("results nested 100,000 deep", COMPARE, "results.json", WRITE, put("results.json", "[" * 100_000)),
    Fault("results in UTF-16", COMPARE, "results.json", WRITE, put("results.json", "{}".encode("utf-16"))),
    Fault(
        "ranges of endless vectors",
        RANGES,
        "ranges",
        "encode",
        set_json("vectors.ranges.json", num_vectors=float("inf")),
    ),
    Fault("results that are not there", "compare base no.json", "no.json", WRITE),
    Fault("results that are a folder", COMPARE, "results.json", WRITE, folder("results.json")),
    Fault("results that are a pipe", COMPARE, "results.json", WRITE, fifo("results.json")),
    Fault(
        "results with words for scores",
        COMPARE,
        "results.json",
        WRITE,
        set_json("results.json", tasks__dev__cosine_spearman="good"),
    ),
    Fault(
        "results whose interval is one number",
        COMPARE,
        "results.json",
        WRITE,
        set_json("results.json", tasks__dev__ci95=[1]),
    ),
    Fault("results without a task", COMPARE, "results.json", WRITE, set_json("results.json", tasks={})),
    Fault("results with a name of the wrong kind", COMPARE, "results.json", WRITE, set_json("results.json", model=7)),
    Fault("similarities that are not there", COMPARE, SIMILARITIES, WRITE, remove(SIMILARITIES)),
    Fault("similarities cut short", COMPARE, SIMILARITIES, WRITE, cut(SIMILARITIES, keep=0.5)),
    Fault("similarities that are a folder", COMPARE, SIMILARITIES, WRITE, folder(SIMILARITIES)),
    Fault("similarities that are a pipe", COMPARE, SIMILARITIES, WRITE, fifo(SIMILARITIES)),
    Fault(
        "similarities with a hostile header",
        COMPARE,
        SIMILARITIES,
        WRITE,
        put_safetensors(SIMILARITIES, b"{}", size=2**63),
    ),
    Fault(
        "similarities without a word of their origin",
        COMPARE,
        SIMILARITIES,
        WRITE,
        put_safetensors(SIMILARITIES, b"{}"),
    ),
    Fault(
        "similarities of another evaluation",
        COMPARE,
        SIMILARITIES,
        WRITE,
        both(remove(SIMILARITIES), link(SIMILARITIES, to="of-base.similarities.safetensors")),
    ),
    Fault("a card with the results of another model", "card runs/r --results of-base.json", "of-base.json", WRITE),
    Fault("a card with results that are not there", "card runs/r --results no.json", "no.json", WRITE),
    Fault(
        "a card with results that are a pipe",
        "card runs/r --results results.json",
        "results.json",
        WRITE,
        fifo("results.json"),
    ),
    Fault(
        "ranges that are no JSON", RANGES, "vectors.ranges.json", "embedsmith encode", put("vectors.ranges.json", "{")
    ),
    Fault(
        "ranges that are not there", RANGES, "vectors.ranges.json", "embedsmith encode", remove("vectors.ranges.json")
    ),
    Fault("ranges that are a pipe", RANGES, "vectors.ranges.json", "embedsmith encode", fifo("vectors.ranges.json")),
    Fault(
        "ranges upside down",
        RANGES,
        "vectors.ranges.json",
        "embedsmith encode",
        set_json("vectors.ranges.json", maximum=[-9.0] * 64),
    ),
    Fault(
        "ranges that are not finite",
        RANGES,
        "vectors.ranges.json",
        "embedsmith encode",
        set_json("vectors.ranges.json", minimum=[float("nan")] * 64),
    ),
    Fault(
        "ranges of another width",
        RANGES,
        "9 dimensions",
        "64",
        set_json("vectors.ranges.json", minimum=[0.0] * 9, maximum=[1.0] * 9),
    ),
    Fault(
        "ranges of another model",
        "encode runs/r texts.txt --out x.npy --vector-precision int8 --ranges vectors.ranges.json",
        "vectors.ranges.json",
        "Take the ranges",
    ),
    Fault(
        "ranges beside bits",
        "encode base texts.txt --out x.npy --vector-precision binary --ranges vectors.ranges.json",
        "binary",
        "Leave them away",
    ),
]
