"""Does llama.cpp embed as the model does? Asked of every GGUF file before it gets its name."""

from dataclasses import replace
from unicodedata import normalize

from embedsmith.export.gguf_prompts import PutPrompts
from embedsmith.export.gguf_vocabulary import Vocabulary
from embedsmith.export.llama_runner import LlamaModel
from embedsmith.export.parity import Expected, Parity, compare_tokens, compare_vectors
from embedsmith.settings.choices import Side


def check_gguf(llama: LlamaModel, *, expected: Expected, put: PutPrompts, vocabulary: Vocabulary, dtype: str) -> Parity:
    """How near llama.cpp's vectors are to the model's, with the prompts put around the texts.

    The tokens of all texts are compared, with and without a look for control tokens; the vectors of those that the
    model does not cut, each by itself and many in a batch.

    Raises:
        RunError: below the tolerance, or another token.
    """
    form = vocabulary.unicode_form
    texts = [normalize(form, text) if form else text for text in expected.texts]
    for name, all_ids in expected.prompted_ids.items():
        prompted = [put.prompts[name].around(text) for text in texts]
        for looks in (False, True):
            found = [llama.tokenize(text, with_control_tokens=looks) for text in prompted]
            own = [[vocabulary.stand_for.get(index, index) for index in ids] for ids in found]
            compare_tokens(own, prompted, all_ids)
    max_length = expected.settings.max_length
    assert max_length is not None
    fits = [index for index, ids in enumerate(expected.prompted_ids[Side.DOCUMENT]) if len(ids) <= max_length]
    prompted = [put.prompts[Side.DOCUMENT].around(texts[index]) for index in fits]
    ways = [llama.encode(prompted), llama.encode(prompted, one_by_one=True)]
    uncut = replace(expected, texts=[expected.texts[index] for index in fits], vectors=expected.vectors[fits])
    return compare_vectors(ways, uncut, dtype=dtype)
