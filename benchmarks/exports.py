"""What every form that a model leaves in costs in quality: its STS score beside the model's own, size and speed.

python -m benchmarks.exports --sts sts/STSBenchmark-test.tsv.gz --folder exports --out exports.json
    exports what is not in the folder yet, scores and times it, and prints a Markdown table
python -m benchmarks.exports ... --without-speed     the scores alone, where the machine has other work
python -m benchmarks.exports --render exports.json   the table again

Every form is run by its own runtime: onnxruntime, openvino, llama.cpp (keys and values in float32), and sentence-
transformers for a static model. What the file holds is not measured again. Differences are to embedsmith's vectors in
float32, with the paired bootstrap's 95 % interval over the pairs and the permutation test's p, corrected for all rows.
Speeds are texts a second on torch's number of threads, the median of three rounds in which all take turns.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.tables import table
from benchmarks.vectors import TASK
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.evaluation.significance import SeedScores, TaskScores, compare
from embedsmith.evaluation.sts import pair_similarities
from embedsmith.export.folders import Dtype, Format, export
from embedsmith.export.gguf_files import GGUF, GGUF_FILE, export_gguf, read_put_prompts
from embedsmith.export.llama_runner import LlamaModel
from embedsmith.export.static import STATIC, export_static
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.settings.choices import Precision, Side
from embedsmith.support.errors import ConfigError, MissingExtraError

OWN = "embedsmith, fp32"
FORMS = {
    "onnx": (Format.ONNX, Dtype.FP32),
    "onnx-int8": (Format.ONNX, Dtype.INT8),
    "openvino": (Format.OPENVINO, Dtype.FP32),
    "openvino-int8": (Format.OPENVINO, Dtype.INT8),
    "gguf-fp16": (GGUF, "fp16"),
    "gguf-q8_0": (GGUF, "q8_0"),
    "gguf-q4_k_m": (GGUF, "q4_k_m"),
    "static": (STATIC, None),
}
_NUM_TIMED = 256  # texts; a static model gets all
_ROUNDS = 3
_WEIGHTS = (".onnx", ".onnx_data", ".xml", ".bin", ".gguf", ".safetensors")
Encode = Callable[[list[str]], np.ndarray]
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Row:
    """One form.

    Attributes:
        size_bytes: of its weights and graph.
        similarities: of all pairs.
        texts_per_s: of each round; empty: not measured.
    """

    size_bytes: int
    similarities: list[float]
    texts_per_s: list[float] = field(default_factory=list)


def main() -> None:
    """Export, score, time, keep and print; or print again."""
    options = _parse()
    if options.render:
        print(render(json.loads(options.render.read_text(encoding="utf-8"))))
        return
    pairs = load_pairs(options.sts)
    found = _found_before(options, pairs)
    rows = {name: Row(**row) for name, row in found["rows"].items()}
    encoders: dict[str, Encode] = {}
    for name in (OWN, *options.forms):
        if name in rows and (options.without_speed or rows[name].texts_per_s):
            continue
        console.print(f"{name} ...")
        try:
            encode, size_bytes = open_form(name, options.model, folder=options.folder)
        except MissingExtraError as error:
            console.print(f"  left out: {error}")
            continue
        if name not in rows:
            similarities = pair_similarities(lambda texts, encode=encode: {"": encode(texts)}, pairs)[""]
            rows[name] = Row(size_bytes, [float(one) for one in similarities])
            _keep(options, found, rows)
        if not options.without_speed:
            encoders[name] = encode
    for name, rates in time_in_turn(encoders, list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))).items():
        rows[name].texts_per_s = rates
    _keep(options, found, rows)
    print(render(found))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-sts", help="a built-in name, a folder, or a finished run")
    parser.add_argument("--sts", default="sample", help="file of scored sentence pairs, or 'sample'")
    parser.add_argument("--folder", type=Path, default=Path("exports"), help="where the exports lie, or are put")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--without-speed", action="store_true", help="scores alone")
    parser.add_argument("--out", type=Path, help="file to keep the figures in")
    parser.add_argument("--render", type=Path, help="measure nothing, print what this file holds")
    return parser.parse_args()


def _found_before(options: argparse.Namespace, pairs: ScoredPairs) -> dict[str, Any]:
    about = {"model": options.model, "pairs": pairs.fingerprint}
    fresh = {**about, "gold": pairs.scores.tolist(), "rows": {}}
    if not options.out or not options.out.exists():
        return fresh
    found: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    if any(found[name] != value for name, value in about.items()):
        raise ConfigError(f"{options.out} holds figures of another model or other pairs.\nGive another --out.")
    return found


def _keep(options: argparse.Namespace, found: dict[str, Any], rows: Mapping[str, Row]) -> None:
    known = [name for name in (OWN, *FORMS) if name in rows]
    found |= {"machine": describe_machine(), "num_threads": torch.get_num_threads()}
    found["rows"] = {name: asdict(rows[name]) for name in known}
    if options.out:
        options.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def open_form(name: str, model: str, *, folder: Path) -> tuple[Encode, int]:
    """What embeds texts by that form, and its bytes; exported into the folder where it is not there.

    Raises:
        MissingExtraError: a package that it needs is not installed.
    """
    if name == OWN:
        own = Embedder.load(model, precision=Precision.FP32)
        named = own.transformer.named_parameters()
        num_weights = sum(one.numel() for part, one in named if "lora_" not in part)
        return lambda texts: own.encode(texts, side=Side.QUERY), 4 * num_weights
    to, dtype = FORMS[name]
    place = folder / name
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if to == GGUF:
            export_gguf(model, folder=place, dtype=str(dtype))
        elif to == STATIC:
            export_static(model, folder=place)
        else:
            export(model, folder=place, to=Format(to), dtype=Dtype(dtype))
    size_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.suffix in _WEIGHTS)
    if to == GGUF:
        return _by_llama_cpp(place / GGUF_FILE), size_bytes
    loaded = load_embedding_model(str(place))
    return lambda texts: loaded.encode(texts, side=Side.QUERY), size_bytes


def _by_llama_cpp(path: Path) -> Encode:
    llama = LlamaModel(path, longest=0)
    template = read_put_prompts(path).get(Side.QUERY, "{text}")

    def encode(texts: list[str]) -> np.ndarray:
        # Some tokenizers bring texts into this form by themselves; these texts are in it for all.
        return llama.encode([template.replace("{text}", normalize("NFC", text)) for text in texts])

    return encode


def time_in_turn(encoders: Mapping[str, Encode], texts: list[str]) -> dict[str, list[float]]:
    """Texts a second of each in each round."""
    few = texts[:: max(1, len(texts) // _NUM_TIMED)]
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    for encode in encoders.values():
        encode(few[:32])
    for _ in range(_ROUNDS):
        for name, encode in encoders.items():
            given = texts if name == STATIC else few
            started = time.perf_counter()
            encode(given)
            rates[name].append(len(given) / (time.perf_counter() - started))
    return rates


def render(found: Mapping[str, Any]) -> str:
    """The table of what a file holds, and of what machine it is."""
    rows = {name: Row(**row) for name, row in found["rows"].items()}
    models = {name: SeedScores([np.array(row.similarities)]) for name, row in rows.items()}
    # These very weights, so that only the pairs are chance.
    compared = compare({TASK: TaskScores(np.array(found["gold"]), models)}, seed_spread=0) if len(rows) > 1 else []
    lines = []
    for name, row in rows.items():
        difference = next((one.tasks[TASK] for one in compared if one.model == name), None)
        score = TaskScores(np.array(found["gold"]), models).scores(name)[0]
        cells = [name, f"{row.size_bytes / 1e6:,.0f}", f"{100 * score:.2f}", "", "", ""]
        if difference is not None:
            lower, upper = (100 * bound for bound in difference.ci95)
            cells[3:] = [f"{100 * difference.gain:+.2f}", f"[{lower:+.2f}, {upper:+.2f}]", f"{difference.p_value:.4f}"]
        lines.append([*cells, f"{median(row.texts_per_s):,.0f}" if row.texts_per_s else "-"])
    header = ["form", "MB", "Spearman x 100", "difference", "95 % interval", "p", "texts a second"]
    about = f"{len(found['gold'])} pairs; {found['machine']['processor']}, {found['num_threads']} threads"
    return f"{about}\n\n{table(header, lines)}"


if __name__ == "__main__":
    main()
