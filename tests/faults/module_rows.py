"""Faulty files of sentence-transformers in a model's folder."""

import json

from tests.faults.fault import (
    Fault,
    Make,
    both,
    put,
)

ENCODE = "encode {} texts.txt --out x.npy"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def _base(what: str, place: str, cure: str, make: Make) -> Fault:
    return Fault(what, ENCODE.format("base"), place, cure, make)


FAULTS = [
    _base("a modules.json that is no JSON", "modules.json", "again", put("base/modules.json", "{")),
    _base("a modules.json that is empty", "modules.json", "again", put("base/modules.json", "[]")),
    _base(
        "a modules.json that leads out of the folder",
        "../sentence",
        "outside",
        put("base/modules.json", json.dumps([MODULES[0], {**MODULES[1], "path": "../sentence/1_Pooling"}])),
    ),
    _base(
        "a modules.json that leads to the root",
        "/etc",
        "outside",
        put("base/modules.json", json.dumps([MODULES[0], {**MODULES[1], "path": "/etc"}])),
    ),
    _base(
        "a module with code of its own",
        "evil.Module",
        "Choose",
        put("base/modules.json", json.dumps([MODULES[0], {**MODULES[1], "type": "evil.Module"}])),
    ),
    _base(
        "a pooling that is not known",
        "1_Pooling/config.json",
        "embedsmith computes",
        both(
            put("base/modules.json", json.dumps(MODULES)),
            put("base/1_Pooling/config.json", '{"pooling_mode": "wonder"}'),
        ),
    ),
    _base(
        "a pooling that is a number",
        "1_Pooling/config.json",
        "embedsmith computes",
        both(put("base/modules.json", json.dumps(MODULES)), put("base/1_Pooling/config.json", '{"pooling_mode": 5}')),
    ),
    _base(
        "a pooling that is a table",
        "1_Pooling/config.json",
        "embedsmith computes",
        both(
            put("base/modules.json", json.dumps(MODULES)), put("base/1_Pooling/config.json", '{"pooling_mode": [{}]}')
        ),
    ),
    _base(
        "a pooling that is no JSON",
        "1_Pooling/config.json",
        "again",
        both(put("base/modules.json", json.dumps(MODULES)), put("base/1_Pooling/config.json", "{")),
    ),
    _base(
        "prompts that are no texts",
        "config_sentence_transformers.json",
        "again",
        both(
            put("base/modules.json", json.dumps(MODULES)),
            put("base/config_sentence_transformers.json", '{"prompts": {"query": 7}}'),
        ),
    ),
    _base(
        "a length below nothing",
        "sentence_bert_config.json",
        "again",
        both(
            put("base/modules.json", json.dumps(MODULES)),
            put("base/sentence_bert_config.json", '{"max_seq_length": -5}'),
        ),
    ),
    _base(
        "a length that is a word",
        "sentence_bert_config.json",
        "again",
        both(
            put("base/modules.json", json.dumps(MODULES)),
            put("base/sentence_bert_config.json", '{"max_seq_length": "long"}'),
        ),
    ),
]
