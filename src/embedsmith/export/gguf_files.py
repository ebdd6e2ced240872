"""A model or run -> a GGUF file for llama.cpp, kept only if llama.cpp embeds as the model does.

    model.gguf     weights, vocabulary, pooling, end token, attention; among its metadata `embedsmith.settings`, what
                   embedding.json holds elsewhere, and under `embedsmith.prompts` what is to be put around texts
    parity.json    how near its vectors are to the model's

llama.cpp puts start and end token around a text, and no prompt: whoever asks it puts the prompt around the text, as
text (`gguf_prompts.py`). Nor does it cut a text in front of the end token: none may be longer than `max_length`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    LlamaFileType,
    PoolingType,
)
from gguf.quants import quantize

from embedsmith.export.folders import PARITY_FILE, check_new_folder, merge_adapter
from embedsmith.export.gguf_bodies import BODIES, describe_body, faults_of_body, weights_of
from embedsmith.export.gguf_parity import check_gguf
from embedsmith.export.gguf_prompts import PutPrompts, put_prompts
from embedsmith.export.gguf_vocabulary import Vocabulary, describe_vocabulary, read_vocabulary
from embedsmith.export.llama_runner import LlamaModel, check_llama_cpp, quantize_q4_k_m
from embedsmith.export.parity import Parity, expect, probe_texts
from embedsmith.export.placing import named_prompts
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.gguf_header import SETTINGS_KEY
from embedsmith.settings.choices import Pooling, Precision, Quantization
from embedsmith.settings.prompts import Prompt
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.support.free_memory import let_go

GGUF = "gguf"
"""What the format is called beside those of `folders.Format`."""
GGUF_FILE = "model.gguf"
PROMPTS_KEY = "embedsmith.prompts"
"""In the metadata: name -> what is to be put around a text, in JSON."""
_POOLINGS = {Pooling.LAST: PoolingType.LAST, Pooling.MEAN: PoolingType.MEAN}
_KINDS = {
    "fp32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "fp16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_Q4_K_M = "q4_k_m"
GGUF_DTYPES = (*_KINDS, _Q4_K_M)


@dataclass(frozen=True)
class GgufFacts:
    """A GGUF file that was written.

    Attributes:
        parity: of llama.cpp's vectors to the model's.
        size_bytes: of the file.
        prompts: name -> template that whoever asks llama.cpp puts around a text; the bare text is not in it.
        unicode_form: in which texts have to be given (NFC), or None: as they are.
        max_length: most tokens of a text.
    """

    parity: Parity
    size_bytes: int
    prompts: Mapping[str, str]
    unicode_form: str | None
    max_length: int


def export_gguf(
    model: str, *, folder: Path, dtype: str = "fp32", base_model: str | None = None, device: str = "cpu"
) -> GgufFacts:
    """Write `folder`/model.gguf.

    Args:
        model: built-in name, hub id, folder or run.
        folder: must not exist, or be empty.
        dtype: one of `GGUF_DTYPES`; norms stay in float32.
        base_model: where the base of a run lies, if not where it lay in training.
        device: where the model embeds what llama.cpp is compared with; that runs on the CPU.

    Raises:
        RunError: the folder is taken or cannot be written, or llama.cpp does not embed as the model does.
        ConfigError: llama.cpp cannot express the model, its tokenizer or its prompts, or there is no such dtype.
        ModelError: a weight that llama.cpp has no name for.
        MissingExtraError: llama-cpp-python is not installed.
    """
    if dtype not in GGUF_DTYPES:
        raise ConfigError(f"--dtype is {dtype}, and gguf takes {', '.join(GGUF_DTYPES)}.\nGive one of those.")
    check_llama_cpp()
    check_new_folder(folder)
    live = Embedder.load(model, base_model=base_model, precision=Precision.FP32, device=device, fused=False)
    if faults := what_gguf_cannot_express(live):
        raise ConfigError(f"Cannot be expressed in gguf: {'; '.join(faults)}.\nExport to another format.")
    put = put_prompts(live, probe_texts(live))
    num_rows = live.backbone.model.get_input_embeddings().num_embeddings
    vocabulary = read_vocabulary(live.tokenizer, num_rows=num_rows, copies=put.copies)
    expected = expect(live, with_empty=bool(live.tokenizer.end_token or live.tokenizer.encoder.starts))
    max_length = live.max_length
    with files.atomic_folder(folder) as temporary:
        path = temporary / GGUF_FILE
        write_gguf(path, live=live, vocabulary=vocabulary, put=put, dtype=dtype)
        del live
        let_go()
        with LlamaModel(path, longest=expected.longest) as llama:
            parity = check_gguf(llama, expected=expected, put=put, vocabulary=vocabulary, dtype=dtype)
        files.write_json(temporary / PARITY_FILE, asdict(parity))
        size = path.stat().st_size
    return GgufFacts(parity, size, put.texts(), vocabulary.unicode_form, max_length)


def read_put_prompts(path: Path) -> dict[str, str]:
    """What a file says is to be put around texts: name -> template; nothing where it says nothing."""
    field = GGUFReader(path).get_field(PROMPTS_KEY)
    return dict(json.loads(field.contents())) if field else {}


def what_gguf_cannot_express(live: Embedder) -> list[str]:
    """Settings that llama.cpp has no place for, by name and value."""
    settings, config, faults = live.settings, live.backbone.model.config, []
    if settings.quantization is not Quantization.NONE:
        faults.append(f"quantization {settings.quantization}: the adapter was trained on rounded weights")
    if live.backbone.dense:
        faults.append("dense layers behind the pooling")
    if settings.pooling not in _POOLINGS:
        faults.append(f"pooling {settings.pooling} (there are {', '.join(_POOLINGS)})")
    if live.causal_layers not in (0, config.num_hidden_layers):
        faults.append(f"bidirectional_layers {settings.bidirectional_layers}: all or none")
    prompts = named_prompts(live)
    if settings.pooling is Pooling.MEAN:
        if settings.pool_over == "text" or (settings.pool_over == "behind_prompt" and _leads(prompts)):
            faults.append(f"means over the {settings.pool_over.replace('_', ' ')} alone")
        if any(prompt.is_echo for prompt in prompts.values()):
            faults.append("means over the second copy of an echo prompt")
    faults += faults_of_body(config, max_length=live.max_length, sees_both_ways=live.causal_layers == 0)
    return faults


def _leads(prompts: Mapping[str, Prompt]) -> bool:
    return any(prompt.parts[0] for prompt in prompts.values())


def write_gguf(path: Path, *, live: Embedder, vocabulary: Vocabulary, put: PutPrompts, dtype: str) -> None:
    """Write the file alone, unchecked; the adapter stays in the model's weights.

    Raises:
        ModelError: a weight that llama.cpp has no name for.
        RunError: llama.cpp cannot quantise it.
    """
    if dtype == _Q4_K_M:
        with TemporaryDirectory(dir=path.parent) as room:
            whole = Path(room, GGUF_FILE)
            write_gguf(whole, live=live, vocabulary=vocabulary, put=put, dtype="fp32")
            quantize_q4_k_m(whole, path)
        return
    network = merge_adapter(live)
    config, (kind, file_type) = network.config, _KINDS[dtype]
    sees_both_ways = live.causal_layers == 0
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[BODIES[config.model_type].architecture])
    writer.add_name(Path(live.backbone.name).name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    describe_body(writer, config, num_tokens=len(vocabulary.tokens), sees_both_ways=sees_both_ways)
    writer.add_pooling_type(_POOLINGS[live.settings.pooling])
    describe_vocabulary(writer, vocabulary, texts=live.tokenizer)
    writer.add_string(SETTINGS_KEY, json.dumps(asdict(live.settings)))
    writer.add_string(PROMPTS_KEY, json.dumps(put.texts()))
    try:
        for name, weight in weights_of(network, copies=list(put.copies.values())):
            _add(writer, name, weight, kind=kind)
    except KeyError as error:
        raise ModelError(
            f"llama.cpp has no name for the weight {error} of '{live.backbone.name}'.\nExport to another format."
        ) from None
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: GGUFWriter, name: str, weight: torch.Tensor, *, kind: GGMLQuantizationType) -> None:
    """Matrices in the format asked for, where their rows are whole blocks of it; all else in float32."""
    block, _ = GGML_QUANT_SIZES[kind]
    if weight.dim() < 2 or weight.shape[-1] % block:
        kind = GGMLQuantizationType.F32
    writer.add_tensor(name, quantize(np.ascontiguousarray(weight.cpu().numpy()), kind), raw_dtype=kind)
