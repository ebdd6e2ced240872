"""A training step on a GPU: embedsmith against sentence-transformers with flash attention, on the same batches.

    python -m benchmarks.gpu --triplets 'nli/*_triplets.tsv.gz'

SmolLM2-135M, and random models of Gemma-2B's and MiniCPM-2B's shapes; batches of 256 triplets, LoRA on q and v, bf16.
Prints a table: medians, after some steps that warm up (the first ones compile; a size of row is recorded when it is met
for the third time, so small models want 20 steps or more). flash attention of sentence-transformers needs the package
flash-attn or flash-attn-4, else torch's own attention stands in, which is said.
`--device cpu --layers 2 --batch-size 8` tries the script itself where there is no GPU.
"""

import argparse
import statistics
import tempfile
import time
from math import isnan
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, GemmaConfig, GraniteConfig, PretrainedConfig

from benchmarks.models import make_plain_folder, plain_tokenizer
from benchmarks.protocol import WorkerSpec, write_batches
from benchmarks.texts import TextSource, default_sources
from benchmarks.variants import VARIANTS
from benchmarks.workers.embedsmith_worker import EmbedsmithSubject
from benchmarks.workers.sentence_transformers_worker import SentenceTransformersSubject, flash_attention
from embedsmith.model.loading.sources import source_of
from embedsmith.support.free_memory import let_go

_WARM_UP_STEPS = 4
_SHAPES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "Gemma-2B's shape": (
        GemmaConfig,
        {
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
        },
    ),
    "MiniCPM-2B's shape": (
        GraniteConfig,
        {
            "hidden_size": 2304,
            "intermediate_size": 5760,
            "num_hidden_layers": 40,
            "num_attention_heads": 36,
            "num_key_value_heads": 36,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 1.4 / 40**0.5,
            "attention_multiplier": 64**-0.5,
        },
    ),
}
_BUILTIN = "SmolLM2-135M"
_MODELS = (_BUILTIN, *_SHAPES)


def main() -> None:
    """Measure all models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", nargs="+", default=default_sources()[0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=_MODELS, default=_MODELS)
    parser.add_argument("--layers", type=int, help="so many of the large shapes' layers")
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    flash = flash_attention() or "torch's attention: neither flash-attn nor flash-attn-4 is installed"
    print(f"{name}, torch {torch.__version__}; sentence-transformers with {flash}\n")
    print("| model | tokens | embedsmith | sentence-transformers | times as fast | peak memory, GB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    builtin = Path(source_of("smollm2-135m"))
    with tempfile.TemporaryDirectory() as temporary:
        source = TextSource(triplets=arguments.triplets, sts=default_sources()[1], model=builtin)
        batches = source.batches(arguments.batch_size, _WARM_UP_STEPS + arguments.steps)
        write_batches(Path(temporary) / "batches.json", batches)
        for model in arguments.models:
            if model == _BUILTIN:
                own, plain = builtin, make_plain_folder(builtin, Path(temporary) / "plain")
            else:
                own = plain = _save_random(model, Path(temporary) / model, builtin=builtin, arguments=arguments)
            print(_measure(model, own, plain, batches=batches, folder=Path(temporary), arguments=arguments), flush=True)


def _save_random(shape: str, target: Path, *, builtin: Path, arguments: argparse.Namespace) -> Path:
    kind, values = _SHAPES[shape]
    tokenizer = plain_tokenizer(builtin)
    if arguments.layers:
        values = {**values, "num_hidden_layers": arguments.layers}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    with torch.device(arguments.device):
        network = AutoModel.from_config(kind(**values, **ids, vocab_size=len(tokenizer)), dtype=torch.bfloat16)
    network.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def _measure(
    model: str, own: Path, plain: Path, *, batches: list[Any], folder: Path, arguments: argparse.Namespace
) -> str:
    """A row of the table."""
    seconds, peaks, tokens = [], [], 0
    for variant, path in (("embedsmith", own), ("sentence-transformers", plain)):
        let_go()
        if arguments.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        spec = WorkerSpec(
            variant=variant,
            model=str(path),
            batch_size=arguments.batch_size,
            triplets=str(folder / "batches.json"),
            device=arguments.device,
        )
        try:
            subject: Any = (
                EmbedsmithSubject(spec, variant=VARIANTS["embedsmith"])
                if variant == "embedsmith"
                else SentenceTransformersSubject(spec, chat_template=False)
            )
            times = []
            for batch in batches:
                started = time.perf_counter()
                _, num_tokens = subject.step(batch)  # reads the loss, so it waits for the GPU
                times.append(time.perf_counter() - started)
        except torch.OutOfMemoryError:
            times, num_tokens = [float("nan")], 0
        subject = None
        seconds.append(statistics.median(times[_WARM_UP_STEPS:] or times))
        peaks.append(torch.cuda.max_memory_allocated() / 1e9 if arguments.device == "cuda" else float("nan"))
        tokens = tokens or num_tokens
    milliseconds = " | ".join("out of memory" if isnan(value) else f"{1000 * value:,.0f} ms" for value in seconds)
    peak = " and ".join(f"{value:.1f}" for value in peaks)
    ratio = "-" if isnan(seconds[1] / seconds[0]) else f"{seconds[1] / seconds[0]:.2f}"
    return f"| {model} | {tokens:,} | {milliseconds} | {ratio} | {peak} |"


if __name__ == "__main__":
    main()
