"""Servers under load: embedsmith's beside infinity-emb, llama.cpp's and sentence-transformers behind the same route.

python -m benchmarks.serving --sts sts/STSBenchmark-test.tsv.gz --infinity .venv-infinity/bin/infinity_emb \
    --llama-server llama.cpp/build/bin/llama-server --out serving.json      prints Markdown tables, takes 20 minutes
python -m benchmarks.serving --quick                                        does it run, not how fast
python -m benchmarks.serving --render serving.json                          the tables again

In each round every server is started, one at a time and in another order, and asked by 1, 8 and 64 clients; a client
sends one text, and the next when it is answered. Texts, their order and the precision are the same for all, and every
answer is compared with what `encode` gives. With embedsmith's server there is besides: one short text, asked in turn
with `encode` in a process of its own, and bad requests, each with its status and time.
"""

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console

from benchmarks.clients import Load, OneClient, Texts, make_body, put_load
from benchmarks.machine import describe_machine
from benchmarks.pool import Member, Worker
from benchmarks.protocol import WorkerSpec, write_sentences
from benchmarks.servers import EMBEDSMITH, MODEL_NAME, Running, ServerFiles, ServerKind, running, server_kinds
from benchmarks.serving_tables import render
from benchmarks.texts import SEED
from benchmarks.variants import VARIANTS
from embedsmith.data.pairs import load_pairs
from embedsmith.data.sample import SAMPLE
from embedsmith.export.folders import Format, export
from embedsmith.model.loading.builtin import BUILTIN, find_installed
from embedsmith.model.loading.devices import choose_dtype
from embedsmith.settings.choices import Precision

CLIENTS = (1, 8, 64)
MANY = CLIENTS[-1]
SHORT = "A man is playing a guitar."
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Durations:
    """Seconds of load, over all rounds.

    Attributes:
        many: of embedsmith's server with 64 clients.
        peers: of the others with 64 clients.
        few: of each with 1 and with 8 clients.
        rounds: in which they are spent.
        num_short: short texts in each round.
    """

    many: float = 300
    peers: float = 60
    few: float = 20
    rounds: int = 2
    num_short: int = 100

    def of_a_round(self, kind: ServerKind, num_clients: int) -> float:
        """Of one server and so many clients."""
        if num_clients < MANY:
            return self.few / self.rounds
        return (self.many if kind.name == EMBEDSMITH else self.peers) / self.rounds


QUICK = Durations(many=3, peers=3, few=2, rounds=1, num_short=5)


def main() -> None:
    """Measure, keep and print; or print again."""
    options = _parse()
    if options.render:
        print(render(json.loads(options.render.read_text(encoding="utf-8"))))
        return
    durations = QUICK if options.quick else Durations()
    if options.seconds:
        durations = replace(durations, many=options.seconds)
    with tempfile.TemporaryDirectory() as name:
        results = _measure(options, durations, folder=Path(name))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(render(results))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", help="a built-in name, a folder, or a finished run")
    parser.add_argument(
        "--sts", default=SAMPLE, help="file of scored sentence pairs whose texts are asked, or 'sample'"
    )
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="of all; default: as embedsmith chooses here")
    parser.add_argument("--servers", nargs="+", help="only these: embedsmith infinity sentence-transformers llama.cpp")
    parser.add_argument("--infinity", default=".venv-infinity/bin/infinity_emb", help="its command")
    parser.add_argument("--llama-server", default="llama-server", help="llama.cpp's")
    parser.add_argument("--gguf", type=Path, help="for llama.cpp; a built-in model brings its own")
    parser.add_argument("--seconds", type=float, help="of embedsmith's server with 64 clients; default 300")
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    parser.add_argument("--out", type=Path, help="file to keep the figures in")
    parser.add_argument("--render", type=Path, help="measure nothing, print what this file holds")
    return parser.parse_args()


def _measure(options: argparse.Namespace, durations: Durations, *, folder: Path) -> dict[str, Any]:
    in_bf16 = choose_dtype(Precision.AUTO, torch.device("cpu")) is torch.bfloat16
    precision = options.precision or ("bf16" if in_bf16 else "fp32")
    pairs = load_pairs(options.sts)
    texts = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
    console.print(f"{len(texts)} texts; exporting {options.model} for the others ...")
    export(options.model, folder=folder / "model", to=Format.SENTENCE_TRANSFORMERS)
    given = ServerFiles(
        options.model, folder / "model", _gguf(options), infinity=options.infinity, llama_server=options.llama_server
    )
    kinds = server_kinds(given, precision=precision)
    kinds = [kind for kind in kinds if not options.servers or kind.name in options.servers]
    left_out = {kind.label: kind.missing for kind in kinds if kind.missing}
    kinds = [kind for kind in kinds if not kind.missing]
    encoder = _start_encoder(options.model, texts, precision=precision, folder=folder)
    found: dict[str, Any] = {"short": [], "bad": {}, "starts": {}}
    loads: dict[tuple[str, int], Load] = {}
    try:
        encoder.ask({"encode": "all", "save": True})
        wanted = Texts(texts, np.load(folder / "rows.npy", allow_pickle=False))
        for number in range(durations.rounds):
            for kind in kinds if number % 2 == 0 else kinds[::-1]:
                console.print(f"round {number + 1} of {durations.rounds}: {kind.label}")
                try:
                    _one_round(kind, number, wanted, durations, encoder, loads=loads, found=found, folder=folder)
                except (RuntimeError, psutil.Error) as error:
                    console.print(f"  failed: {error}")
                    left_out[kind.label] = str(error)
    finally:
        encoder.quit()
    rows = [
        {"server": kind.label, **loads[kind.name, number].summary()}
        for number in CLIENTS
        for kind in kinds
        if (kind.name, number) in loads
    ]
    command = shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]])
    about = {"command": command, "machine": describe_machine(), "model": options.model, "num_texts": len(texts)}
    return {**about, "precision": precision, "left_out": left_out, "loads": rows, **found}


def _gguf(options: argparse.Namespace) -> Any:
    if options.gguf or options.model not in BUILTIN:
        return options.gguf
    pieces = find_installed(options.model).pieces
    return pieces[0] if len(pieces) == 1 else None


def _start_encoder(model: str, texts: list[str], *, precision: str, folder: Path) -> Worker:
    """`encode` in a process of its own, set up as the command line does it."""
    write_sentences(folder / "texts.json", {"all": texts, "short": [SHORT]})
    spec = WorkerSpec(
        variant="embedsmith",
        model=model,
        batch_size=2,  # of a step, which is not asked for
        sentences=str(folder / "texts.json"),
        embeddings=str(folder / "rows.npy"),
        precision=precision,
        max_length=512,
    )
    return Worker(Member(VARIANTS["embedsmith"], spec), log=folder / "encode.log")


def _one_round(
    kind: ServerKind,
    number: int,
    texts: Texts,
    durations: Durations,
    encoder: Worker,
    *,
    loads: dict[tuple[str, int], Load],
    found: dict[str, Any],
    folder: Path,
) -> None:
    with running(kind, log=folder / f"{kind.name}.log") as server:
        found["starts"].setdefault(kind.label, []).append(server.start_s)
        put_load(server.url, texts, num_clients=8, seconds=2, seed=SEED)  # it warms up
        if kind.name == EMBEDSMITH:
            found["short"] += time_short(server, encoder, times=durations.num_short)
        for num_clients in CLIENTS:
            seconds = durations.of_a_round(kind, num_clients)
            load = put_load(
                server.url,
                texts,
                num_clients=num_clients,
                seconds=seconds,
                seed=SEED + number,
                count_bytes=server.count_bytes,
            )
            loads.setdefault((kind.name, num_clients), Load(num_clients)).add(load)
            one = load.summary()
            console.print(f"  {num_clients} clients: {one['texts_per_s']:.1f} texts a second, faults: {one['faults']}")
        if kind.name == EMBEDSMITH and not found["bad"]:
            found["bad"] = time_bad(server.url)


def time_short(server: Running, encoder: Worker, *, times: int) -> list[tuple[float, float]]:
    """Seconds of one short text, by the server and by `encode`, in turn."""
    client = OneClient(server.url)
    pairs = []
    for _ in range(times):
        status, asked = client.post(make_body(SHORT))
        assert status == 200, status
        pairs.append((asked, float(encoder.ask({"encode": "short"})["seconds"])))
    client.close()
    return pairs


def time_bad(url: str) -> dict[str, tuple[int, float]]:
    """Status and seconds of bad requests, the slowest of three; a good one after each is answered."""
    good = make_body(SHORT)
    bad: dict[str, tuple[bytes, dict[str, str]]] = {
        "a body of 50 MB": (make_body("a" * 50_000_000), {}),
        "10,000 items": (json.dumps({"model": MODEL_NAME, "input": ["a"] * 10_000}).encode(), {}),
        "invalid UTF-8": (good.replace(b"man", b"\xff\xfe"), {}),
        "100,000 lists in one another": (good.replace(json.dumps(SHORT).encode(), b"[" * 100_000 + b"]" * 100_000), {}),
        "a number for a text": (json.dumps({"model": MODEL_NAME, "input": 7}).encode(), {}),
        "an unknown model": (json.dumps({"model": "another", "input": SHORT}).encode(), {}),
        "a wrong key": (good, {"Authorization": "Bearer another"}),
    }
    times = {}
    for name, (body, headers) in bad.items():
        each = []
        for _ in range(3):
            client = OneClient(url)
            each.append(client.post(body, headers=headers))
            client.close()
            client = OneClient(url)
            status, _ = client.post(good)
            assert status == 200, (name, status)
            client.close()
        times[name] = max(each, key=lambda one: one[1])
    return times


if __name__ == "__main__":
    main()
