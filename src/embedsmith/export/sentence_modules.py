"""What the package sentence-transformers has to know of a model: its modules, length, prompts, as files in a folder."""

from pathlib import Path

from embedsmith.export.placing import PlacedPrompts
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.dense import save_dense
from embedsmith.settings.choices import Pooling, Side
from embedsmith.support import files

MODES = {Pooling.LAST: "lasttoken", Pooling.MEAN: "mean", Pooling.WEIGHTED_MEAN: "weightedmean"}
_ALL_MODES = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}


def describe(folder: Path, *, live: Embedder, prompts: PlacedPrompts) -> None:
    """sentence-transformers' own files, in the form that its old and new versions and the servers read."""
    settings = live.settings
    dense = live.backbone.dense
    kinds = ["Transformer", "Pooling"]
    for layer in dense:
        kinds += ["Normalize"] * layer.is_normalized + ["Dense"]
    kinds.append("Normalize")
    folders = [f"{index}_{kind}" if index else "" for index, kind in enumerate(kinds)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(zip(folders, kinds, strict=True))
    ]
    limits = {"max_seq_length": settings.max_length, "do_lower_case": False}
    files.write_json(folder / "sentence_bert_config.json", limits)
    files.write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": prompts.texts,
            "default_prompt_name": str(Side.DOCUMENT) if prompts.texts[Side.DOCUMENT] else None,
            "similarity_fn_name": "cosine",
        },
    )
    mode = MODES[settings.pooling]
    (folder / "1_Pooling").mkdir()
    hidden_size = live.backbone.model.config.hidden_size
    files.write_json(
        folder / "1_Pooling" / "config.json",
        {
            # The old word, which new versions know too; the new one stops version 5.
            "word_embedding_dimension": hidden_size,
            "pooling_mode": mode,
            **{f"pooling_mode_{old}": new == mode for new, old in _ALL_MODES.items()},
            "include_prompt": settings.pool_over == "all",
        },
    )
    layers = iter(dense)
    for name, kind in zip(folders, kinds, strict=True):
        if kind == "Normalize":
            (folder / name).mkdir()
            files.write_json(folder / name / "config.json", {})
        elif kind == "Dense":
            save_dense(next(layers), folder / name)
    files.write_json(folder / "modules.json", modules)
