"""Faulty runs, checkpoints, averages and exports."""

from tests.faults.fault import (
    Fault,
    both,
    cut,
    put,
    remove,
    remove_folders,
    replace,
    set_json,
)

ENCODE = "encode {} texts.txt --out x.npy"

FAULTS = [
    Fault("a run to go on with that is none", "train --resume sts", "sts", "run.yaml"),
    Fault("a run to go on with that is not there", "train --resume nothing", "nothing", "run.yaml"),
    Fault(
        "a run whose recipe is damaged",
        "train --resume stopped",
        "stopped/run.yaml",
        "line",
        put("stopped/run.yaml", "a: ["),
    ),
    Fault(
        "a run whose inputs are damaged",
        "train --resume stopped",
        "stopped/checkpoints/inputs.json",
        "another folder",
        put("stopped/checkpoints/inputs.json", "{"),
    ),
    Fault(
        "a run whose data changed",
        "train --resume stopped",
        "the training data",
        "Put back",
        replace("t.tsv", "w1 cat", "w9 cat"),
    ),
    Fault(
        "a run whose settings changed",
        "train --resume stopped",
        "seed",
        "Put back",
        replace("stopped/run.yaml", "seed: 7", "seed: 8"),
    ),
    Fault(
        "checkpoints that are all damaged",
        "train --resume stopped",
        "step-000002",
        "another folder",
        both(
            cut("stopped/checkpoints/step-000002/weights.safetensors", keep=0.5),
            cut("stopped/checkpoints/step-000000/weights.safetensors", keep=0.5),
        ),
    ),
    Fault(
        "checkpoints without their sums",
        "train --resume stopped",
        "SHA256SUMS",
        "another folder",
        both(
            remove("stopped/checkpoints/step-000002/SHA256SUMS"), remove("stopped/checkpoints/step-000000/SHA256SUMS")
        ),
    ),
    Fault(
        "sums that lead out of the checkpoint",
        "train --resume stopped",
        "SHA256SUMS",
        "another folder",
        both(
            put("stopped/checkpoints/step-000002/SHA256SUMS", "0" * 64 + "  ../../../t.tsv\n"),
            put("stopped/checkpoints/step-000000/SHA256SUMS", "0" * 64 + "  /etc/passwd\n"),
        ),
    ),
    Fault(
        "a run that has no checkpoint",
        "train --resume stopped",
        "stopped",
        "Start it in another folder",
        remove_folders("stopped/checkpoints/step-000000", "stopped/checkpoints/step-000002"),
    ),
    Fault("a run that is there already", "train --config recipe.yaml --output_dir runs/r", "runs/r", "another", None),
    Fault(
        "an outcome that is no JSON",
        "report runs/r --data sts --out x.html",
        "runs/r",
        "outcome.json",
        put("runs/r/outcome.json", "{"),
    ),
    Fault(
        "an outcome that is a list",
        "card runs/r --results results.json",
        "outcome.json",
        "Finish it",
        put("runs/r/outcome.json", "[]"),
    ),
    Fault(
        "an average.json that is damaged",
        "card average --results results.json",
        "average.json",
        "embedsmith average",
        put("average/average.json", '{"models": 7}'),
    ),
    Fault("a run that is not finished", "push stopped a/b --dry-run", "stopped", "Finish it"),
    Fault("a folder that is nothing to push", "push sts a/b --dry-run", "sts", "Give one"),
    Fault("a repository that cannot be one", "push runs/r 'a b/../c' --dry-run", "a b/../c", "owner/name"),
    Fault("models of different bases to average", "average runs/r wider --to x", "wider", "adapter"),
    Fault("weights of an average that are too many", "average runs/r runs/r --weights 1 2 3 --to x", "--weights", "3"),
    Fault("weights of an average that are words", "average runs/r --weights one --to x", "--weights", "--help"),
    Fault("an average of rank 0", "average runs/r --rank 0 --to x", "--rank", "--help"),
    Fault("a folder to export to that is full", "export base sts --to merged", "sts", "another"),
    Fault("a kind of export that is not known", "export base x --to wonder", "wonder", "merged"),
    Fault("a number format that an export has not", "export base x --to merged --dtype q8_0", "q8_0", "fp32"),
    Fault("a base to export as an adapter", "export base x --to peft", "an adapter", "Export to merged"),
    Fault(
        "an export whose settings are damaged",
        ENCODE.format("merged"),
        "embedding.json",
        "again",
        set_json("merged/embedding.json", max_length="long"),
    ),
    Fault(
        "an export whose weights are damaged",
        ENCODE.format("merged"),
        "merged",
        "again",
        cut("merged/model.safetensors", keep=0.9),
    ),
    Fault(
        "an export in whose modules a path leads out",
        ENCODE.format("sentence"),
        "sentence/modules.json",
        "outside",
        replace("sentence/modules.json", '"1_Pooling"', '"../base"'),
    ),
]
