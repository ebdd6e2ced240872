"""Faulty command lines, of every verb."""

from tests.faults.fault import Fault, both, fifo, put, without_rights

HELP = "--help"

FAULTS = [
    Fault("a command that is not known", "trian", "trian", HELP),
    Fault("no model to evaluate", "evaluate", "'model'", HELP),
    Fault("an option that is not known", "evaluate base --wonder", "--wonder", HELP),
    Fault("an option without its value", "evaluate base --tasks", "--tasks", "Write one"),
    Fault("an option with an empty value", "evaluate base --data=", "--data", "your shell"),
    Fault("a model without a name", "evaluate ''", "name", "your shell"),
    Fault("a word where an option belongs", "train recipe.yaml", "recipe.yaml", "--section.key"),
    Fault(
        "a setting that is not known on the command line", "train --learning-rat 1", "--learning_rat", "Did you mean"
    ),
    Fault("a setting without its value", "train --max_steps", "--max_steps", "VALUE"),
    Fault(
        "a setting with a list that is not closed",
        "train --config recipe.yaml --data.train '[a, b'",
        "no such file",
        "Correct",
    ),
    Fault("a device that is not there", "doctor base --device cuda:7", "cuda:7", "cpu"),
    Fault("a device that is none", "doctor base --device wonder", "wonder", "cpu"),
    Fault("a precision that is not known", "evaluate base --data sts --precision fp4", "fp4", "fp32"),
    Fault(
        "a pooling that is not known on the command line", "evaluate base --data sts --pooling wonder", "wonder", "mean"
    ),
    Fault("a prompt that is neither known nor a template", "doctor base --prompt wonder", "wonder", "{text}"),
    Fault("a prompt with an unknown field", "doctor base --prompt '{text} {wonder}'", "wonder", "{text}"),
    Fault("an instruction without a place", "evaluate base --data sts --instruction x", "instruction", "{instruction}"),
    Fault("texts of no tokens", "doctor base --max-length 0", "max", "0"),
    Fault("more tokens than the model takes", "doctor base --max-length 4096", "4096", "128"),
    Fault("more dimensions than there are", "evaluate base --data sts --dims 999", "999", "64"),
    Fault("no dimensions", "encode base texts.txt --out x.npy --dim 0", "0", "64"),
    Fault(
        "a number format of vectors that is not known",
        "encode base texts.txt --out x.npy --vector-precision int3",
        "int3",
        "int8",
    ),
    Fault(
        "a calibration without a use",
        "encode base texts.txt --out x.npy --calibration texts.txt",
        "calibrate",
        "Leave one",
    ),
    Fault(
        "vectors into a folder of other files", "encode base texts.txt --out sts", "sts", "Choose a new or empty folder"
    ),
    Fault("a search in a folder without vectors", "search base sts 'a cat'", "sts", "Name a folder"),
    Fault("a search in a file", "search base texts.txt 'a cat'", "texts.txt", "Name a folder"),
    Fault("a search for nothing", "search base sts ' '", "query is empty", "--queries"),
    Fault("workers without a cluster", "encode base texts.txt --out x --workers 2", "Workers", "Leave --workers away"),
    Fault("vectors into a file of another kind", "encode base texts.txt --out t.tsv", "t.tsv", "Name a folder"),
    Fault("vectors into a pipe", "encode base texts.txt --out x.npy", "--out", "Name a file", fifo("x.npy")),
    Fault(
        "vectors where nothing may be written",
        "encode base texts.txt --out shut/x.npy",
        "--out",
        "Name another place",
        both(put("shut/a", ""), without_rights("shut", mode=0o555)),
        is_of_rights=True,
    ),
    Fault("a page into a file of another kind", "report base --data sts --out t.tsv", "t.tsv", "Name another file"),
    Fault("one model to compare", "compare base --data sts", "compare", "two"),
    Fault("a model to compare that is not there", "compare base ./nothing --data sts", "./nothing", "a hub id"),
    Fault("draws below nothing", "compare results.json of-base.json --draws -5", "--draws", "greater than"),
    Fault(
        "a spread below nothing", "compare results.json of-base.json --seed-spread -1", "--seed-spread", "greater than"
    ),
    Fault(
        "a spread that is no number",
        "compare results.json of-base.json --seed-spread nan",
        "--seed-spread",
        "greater than",
    ),
    Fault(
        "a baseline over a prompt that is not known",
        "baseline base --dev sts/dev.tsv --prompts wonder",
        "--prompts names wonder",
        "it may name none, prompteol",
    ),
    Fault("a baseline on pairs that are not there", "baseline base --dev no.tsv", "no.tsv", "Correct"),
    Fault("a threshold out of its range", "data check t.tsv --against sts --threshold 7", "--threshold", "less than"),
    Fault(
        "a margin out of its range",
        "data mine t.tsv --model base --out o.tsv --relative-margin 9",
        "--relative-margin",
        "from -2 to 2",
    ),
    Fault(
        "no negatives to mine",
        "data mine t.tsv --model base --out o.tsv --num-negatives 0",
        "--num-negatives",
        "greater than",
    ),
    Fault(
        "mined rows into the file that they come from", "data mine t.tsv --model base --out t.tsv", "t.tsv", "another"
    ),
    Fault("an endpoint that is none", "data synthesize --endpoint wonder --model m --out o.jsonl", "wonder", "http"),
    Fault(
        "no triplets to synthesise",
        "data synthesize --endpoint http://127.0.0.1:1/v1 --model m --out o.jsonl --num-triplets 0",
        "--num-triplets",
        "greater than",
    ),
    Fault(
        "a kind of task that is not known",
        "data synthesize --endpoint http://127.0.0.1:1/v1 --model m --out o.jsonl --task-types wonder",
        "--task-types names wonder",
        "it may name",
    ),
    Fault("a recipe over data", "init t.tsv --model base --out t.tsv --no-plan", "t.tsv", "another"),
    Fault(
        "columns that cannot be told",
        "init x.tsv --model base --out n.yaml --no-plan",
        "x.tsv",
        "--columns",
        put("x.tsv", "a\n1\n2\n"),
    ),
    Fault("a plan of a run without data", "plan --model.model base --data.train no.tsv", "no.tsv", "Correct"),
    Fault("a demo into a file", "demo --output-dir t.tsv", "t.tsv", "folder"),
    Fault("a server at a port that is none", "serve base --port 99999", "--port", HELP),
    Fault(
        "a server at an address that is not here",
        "serve base --host 203.0.113.7 --port 0",
        "203.0.113.7",
        "Choose --host",
        needs="fastapi",
    ),
    Fault("a key file that is not there", "serve base --api-key-file no.key", "no.key", "key", needs="fastapi"),
    Fault(
        "a key file that is empty",
        "serve base --api-key-file x.key",
        "x.key",
        "key",
        put("x.key", "\n"),
        needs="fastapi",
    ),
    Fault(
        "a key file that is a pipe", "serve base --api-key-file x.key", "x.key", "key", fifo("x.key"), needs="fastapi"
    ),
    Fault("two models of one name", "serve a=base a=wider", "'a'", "another name", needs="fastapi"),
    Fault("a search without a file", "optimize", "--config", HELP),
    Fault("a sweep without a file", "sweep", "--config", HELP),
    Fault("an average of nothing", "average --to x", "'models'", HELP),
    Fault("an export without a folder", "export base --to merged", "'folder'", HELP),
]
