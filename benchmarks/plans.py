"""What is compared: each part as plans (who does which works), built before anything runs, so that time can be told.

step        a training step of 32 and of 64 triplets, everybody
gradcache   512 triplets within a bound on memory, against one forward of 64
encode      sentences, and one short text
prompt      a step, and sentences, under a prompt
adapter     a step by rank and adapted layers
growth      time and memory against batch, text length, model size
families    random models of other families
busy        a step on an idle machine, and beside a process that wants a core
long        memory and speed over hundreds of steps
start       from the start of a process to its first finished step
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.models import FAMILIES, count_parameters, make_plain_folder, make_random_folder, plain_tokenizer
from benchmarks.pool import Member, Work
from benchmarks.protocol import Batch, Message, WorkerSpec, write_batches, write_sentences
from benchmarks.rows import ENCODING_FACTOR, TRAINING_FACTOR
from benchmarks.scale import Scale
from benchmarks.texts import TextSource
from benchmarks.variants import REFERENCE, Variant, choose_variants

ONE_TEXT_REPEATS = 20
LARGEST_PEER_BATCH = 64
"""Of sentence-transformers in `growth`; larger ones take minutes a step where they fit at all."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison.

    Attributes:
        part: the part it belongs to.
        members: who takes part; the reference first.
        works: what they do each round.
        reference: name of the variant that ratios are against.
        parameters: of the model, outside its embedding.
        factor: necessary operations per parameter and token.
        fresh_process: each round starts new processes, and their start counts.
        in_one_go: the reference alone does the works one after the other, each once, and all of it counts.
    """

    part: str
    members: tuple[Member, ...]
    works: tuple[Work, ...]
    reference: str
    parameters: int
    factor: int = TRAINING_FACTOR
    fresh_process: bool = False
    in_one_go: bool = False


class Planner:
    """Builds plans and the files they need.

    Args:
        folder: for texts and models; must outlive the plans.
        source: of texts.
        model: folder of the built-in model.
        scale: of everything.
        precision: the machine's fast one, bf16 or fp32.
        peers: trainers with an environment of their own.
    """

    def __init__(
        self,
        *,
        folder: Path,
        source: TextSource,
        model: Path,
        scale: Scale,
        precision: str,
        peers: Sequence[Variant],
    ) -> None:
        self.folder = folder
        self.source = source
        self.scale = scale
        self.precision = precision
        self.peers = [peer for peer in peers if not peer.missing]
        self.model = model
        self.plain_model = make_plain_folder(model, folder / "models" / "plain")

    def plans(self, part: str) -> list[Plan]:
        """The plans of a part."""
        makers: dict[str, Callable[[], list[Plan]]] = {
            "step": self._step,
            "gradcache": self._gradcache,
            "encode": self._encode,
            "prompt": self._prompt,
            "adapter": self._adapter,
            "growth": self._growth,
            "families": self._families,
            "busy": self._busy,
            "long": self._long,
            "start": self._start,
        }
        return makers[part]()

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _step(self) -> list[Plan]:
        names = ("embedsmith-default", "embedsmith-plain", "st-bf16", "st-fp32", "st-as-it-comes", "published")
        batches = {f"{size} triplets": self._batches(size) for size in self.scale.step_batches}
        variants = [*self._variants(*names), *self.peers]
        return [self._training_plan("step", batches, variants=variants)]

    def _gradcache(self) -> list[Plan]:
        direct, cached = self.scale.direct_batch, self.scale.cached_batch
        batches = {f"{direct} triplets": self._batches(direct), f"{cached} triplets": self._batches(cached)}
        bounded = ("embedsmith-default", "embedsmith-bounded")
        plan = self._training_plan("gradcache", batches, variants=self._variants(*bounded))
        only = [frozenset(bounded), frozenset({REFERENCE})]
        works = tuple(replace(work, skip=skip) for work, skip in zip(plan.works, only, strict=True))
        return [replace(plan, works=works)]

    def _encode(self) -> list[Plan]:
        names = ("embedsmith-plain", "st-bf16", "embedsmith-fp32", "embedsmith-plain-fp32", "st-fp32")
        sentences = self.source.sentences(self.scale.num_sentences)
        variants = self._variants(*names, "bare-bf16", "bare-fp32")
        plan = self._encoding_plan("encode", sentences, variants=variants)
        one = min(sentences, key=lambda text: abs(len(text) - 40))
        spec_file = self._write_sentences("encode-one", {"sts": sentences, "one": [one]})
        works = (
            replace(plan.works[0], skip=frozenset({"bare-bf16", "bare-fp32"})),
            Work(
                name="one short text",
                requests=tuple({"encode": "one", "repeat": ONE_TEXT_REPEATS} for _ in range(self._num_rounds)),
                tokens=(self.source.count_tokens([one]),) * self._num_rounds,
                items=1,
            ),
        )
        members = tuple(replace(m, spec=replace(m.spec, sentences=spec_file)) for m in plan.members)
        return [replace(plan, works=works, members=members)]

    def _prompt(self) -> list[Plan]:
        size = self.scale.step_batches[0]
        variants = self._variants("embedsmith-prompt", "embedsmith-prompt-apart")
        return [
            self._training_plan("prompt", {f"{size} triplets": self._batches(size)}, variants=variants),
            self._encoding_plan("prompt", self.source.sentences(self.scale.num_sentences), variants=variants),
        ]

    def _adapter(self) -> list[Plan]:
        size = self.scale.step_batches[0]
        names = ("embedsmith-rank-32", "embedsmith-all", "embedsmith-all-rank-32", "st-bf16", "st-bf16-all-rank-32")
        variants = self._variants(*names)
        return [self._training_plan("adapter", {f"{size} triplets": self._batches(size)}, variants=variants)]

    def _growth(self) -> list[Plan]:
        (st,) = self._variants("st-bf16")
        scale = self.scale
        by_batch = {f"{size} triplets": self._batches(size) for size in scale.growth_batches}
        by_length = {
            f"texts of {length} tokens": self.source.long_batches(
                length, batch_size=scale.growth_length_batch, num_batches=self._num_rounds
            )
            for length in scale.growth_lengths
        }
        by_batch_plan = self._training_plan(
            "growth-batch", by_batch, variants=[st], reference="embedsmith-default", x=scale.growth_batches
        )
        too_long = frozenset({st.name})
        works = [w if w.items <= LARGEST_PEER_BATCH else replace(w, skip=too_long) for w in by_batch_plan.works]
        plans = [
            replace(by_batch_plan, works=tuple(works)),
            self._training_plan(
                "growth-length", by_length, variants=[st], x=scale.growth_lengths, max_length=max(scale.growth_lengths)
            ),
        ]
        batches = self._batches(scale.growth_model_batch)
        for model, plain in ((self.model, self.plain_model), (self._random_model("qwen2"),) * 2):
            millions = round(count_parameters(model) / 1e6)
            plans.append(
                self._training_plan(
                    "growth-model",
                    {f"model of {millions}M": batches},
                    variants=[st],
                    x=(millions,),
                    model=model,
                    plain_model=plain,
                )
            )
        return plans

    def _families(self) -> list[Plan]:
        plans = []
        (st,) = self._variants("st-bf16")
        batches = self._batches(self.scale.families_batch)
        sentences = self.source.sentences(self.scale.families_sentences)
        for family in FAMILIES:
            folder = self._random_model(family)
            named = {f"{family}: {self.scale.families_batch} triplets": batches}
            plans.append(self._training_plan("families", named, variants=[st], model=folder, plain_model=folder))
            plans.append(self._encoding_plan("families", sentences, variants=[st], model=folder, prefix=f"{family}: "))
        return plans

    def _busy(self) -> list[Plan]:
        size = self.scale.step_batches[0]
        names = ("embedsmith-one-thread", "embedsmith-awake", "st-bf16")
        idle = f"{size} triplets"
        plan = self._training_plan("busy", {idle: self._batches(size)}, variants=self._variants(*names))
        busy = replace(plan.works[0], name=f"{idle}, one other busy process", num_busy=1, against=idle)
        return [replace(plan, works=(*plan.works, busy))]

    def _long(self) -> list[Plan]:
        scale = self.scale
        batches = self.source.batches(scale.long_batch, scale.long_steps)
        path = self.folder / "long.json"
        write_batches(path, batches)
        spec = WorkerSpec(variant="", model="", triplets=str(path), batch_size=scale.long_batch)
        member = self._member(self._reference(), spec, model=self.model, plain_model=self.plain_model)
        tokens = [self.source.count_tokens(batch.texts) for batch in batches]
        works = tuple(
            Work(
                name=f"steps {first + 1} to {first + scale.long_block}",
                requests=({"steps": [first, first + scale.long_block]},),
                tokens=tuple(tokens[first : first + scale.long_block]),
                items=scale.long_batch,
                x=first + scale.long_block,
            )
            for first in range(0, scale.long_steps, scale.long_block)
        )
        return [
            Plan(
                part="long",
                members=(member,),
                works=works,
                reference=REFERENCE,
                parameters=count_parameters(self.model),
                in_one_go=True,
            )
        ]

    def _start(self) -> list[Plan]:
        size = self.scale.step_batches[0]
        variants = self._variants("embedsmith-plain", "st-bf16", "st-fp32")
        plan = self._training_plan("start", {f"first step of {size} triplets": self._batches(size)}, variants=variants)
        caches = {
            name: str(self.folder / "empty-caches" / name)
            for name in ("EMBEDSMITH_CACHE", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR")
        }
        first = plan.members[0]
        unprepared = replace(first.variant, name="embedsmith-first", label=f"{first.variant.label}, empty caches")
        members = (*plan.members, Member(unprepared, first.spec, environment=caches))
        return [replace(plan, members=members, fresh_process=True)]

    # ---- pieces ---------------------------------------------------------------------------------------------------

    def _variants(self, *names: str) -> list[Variant]:
        """Those beside the reference."""
        chosen = choose_variants(names, precision=self.precision)
        return [variant for variant in chosen if variant.name != REFERENCE]

    def _reference(self, name: str = REFERENCE) -> Variant:
        (variant,) = choose_variants([name], precision=self.precision)
        return variant

    @property
    def _num_rounds(self) -> int:
        return self.scale.repetitions + 1

    def _batches(self, size: int) -> list[Batch]:
        return self.source.batches(size, self._num_rounds)

    def _random_model(self, family: str) -> Path:
        folder = self.folder / "models" / family
        if folder.exists():
            return folder
        return make_random_folder(family, folder, tokenizer=plain_tokenizer(self.model))

    def _training_plan(
        self,
        part: str,
        named_batches: dict[str, list[Batch]],
        *,
        variants: Sequence[Variant],
        reference: str = REFERENCE,
        x: Sequence[float] | None = None,
        max_length: int = 150,
        model: Path | None = None,
        plain_model: Path | None = None,
    ) -> Plan:
        model, plain_model = model or self.model, plain_model or self.plain_model
        batches = [batch for group in named_batches.values() for batch in group]
        path = self.folder / f"{part}-{'-'.join(named_batches)}.json".replace(" ", "_").replace(":", "")
        write_batches(path, batches)
        starts = range(0, len(batches), self._num_rounds)
        tokens = [self.source.count_tokens(batch.texts, max_length=max_length) for batch in batches]
        works = tuple(
            Work(
                name=name,
                requests=tuple({"step": start + number} for number in range(self._num_rounds)),
                tokens=tuple(tokens[start : start + self._num_rounds]),
                items=len(batches[start].anchors),
                x=x[index] if x else None,
            )
            for index, (name, start) in enumerate(zip(named_batches, starts, strict=True))
        )
        spec = WorkerSpec(
            variant="",
            model="",
            triplets=str(path),
            batch_size=max(len(b.anchors) for b in batches),
            max_length=max_length,
        )
        members = [
            self._member(variant, spec, model=model, plain_model=plain_model)
            for variant in (self._reference(reference), *variants)
        ]
        return Plan(
            part=part,
            members=tuple(members),
            works=works,
            reference=reference,
            parameters=count_parameters(model),
        )

    def _encoding_plan(
        self,
        part: str,
        sentences: list[str],
        *,
        variants: Sequence[Variant],
        model: Path | None = None,
        prefix: str = "",
    ) -> Plan:
        path = self._write_sentences(f"{part}-{prefix}", {"sts": sentences})
        plain_model = model or self.plain_model
        model = model or self.model
        # The warm-up round keeps the embeddings, to be compared.
        requests: list[Message] = [{"encode": "sts"} for _ in range(self._num_rounds)]
        requests[0] |= {"save": True}
        work = Work(
            name=f"{prefix}{len(sentences)} sentences",
            requests=tuple(requests),
            tokens=(self.source.count_tokens(sentences),) * self._num_rounds,
            items=len(sentences),
        )
        spec = WorkerSpec(variant="", model="", sentences=path, batch_size=2)
        members = []
        for variant in (self._reference(), *variants):
            embeddings = str(self.folder / f"{part}-{prefix}{variant.name}.npy".replace(": ", "-"))
            own = replace(spec, embeddings=embeddings)
            members.append(self._member(variant, own, model=model, plain_model=plain_model))
        return Plan(
            part=part,
            members=tuple(members),
            works=(work,),
            reference=REFERENCE,
            parameters=count_parameters(model),
            factor=ENCODING_FACTOR,
        )

    def _member(self, variant: Variant, spec: WorkerSpec, *, model: Path, plain_model: Path) -> Member:
        own = replace(
            spec,
            variant=variant.name,
            model=str(plain_model if variant.wants_plain_tokenizer else model),
            precision=variant.precision,
            keep_freed_memory=variant.keep_freed_memory,
            max_tokens=variant.max_tokens,
            lora_r=variant.lora_r,
            lora_alpha=4 * variant.lora_r,
            target_modules=variant.target_modules,
        )
        return Member(variant, own, environment=dict(variant.environment))

    def _write_sentences(self, name: str, lists: dict[str, list[str]]) -> str:
        path = self.folder / f"{name}.json".replace(": ", "-")
        write_sentences(path, lists)
        return str(path)
