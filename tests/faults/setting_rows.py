"""Faulty recipes, sweeps and searches."""

from tests.faults.fault import Fault, fifo, link, put, replace, without_rights

TRAIN = "train --config recipe.yaml"
FIX = "Fix them and start again"


def _bomb(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def _merged_bomb(levels: int = 10) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def _recipe(what: str, old: str, new: str, place: str, cure: str = FIX) -> Fault:
    return Fault(what, TRAIN, place, cure, replace("recipe.yaml", old, new))


FAULTS = [
    _recipe(
        "a setting that is not known",
        "batch_size",
        "batchsize",
        "training.batchsize: no such setting",
        "Did you mean training.batch_size?",
    ),
    _recipe("a section that is not known", "training:", "trainings:", "trainings: no such setting"),
    _recipe("a setting twice", "max_steps: 2", "max_steps: 2\n  max_steps: 3", "recipe.yaml", "line"),
    _recipe("a number that is a word", "batch_size: 6", "batch_size: six", "training.batch_size"),
    _recipe("a number that is a list", "batch_size: 6", "batch_size: [6]", "training.batch_size"),
    _recipe("a section that is a list", "model:\n  model: base\n  precision: fp32", "model: [base]", "model"),
    _recipe("a number out of its range", "batch_size: 6", "batch_size: -6", "training.batch_size"),
    _recipe("a number that is not finite", "batch_size: 6", "batch_size: 6\n  learning_rate: .inf", "learning_rate"),
    _recipe("a choice that is not known", "precision: fp32", "precision: fp31", "model.precision"),
    _recipe("YAML that is none", "training:", "training: [", "recipe.yaml", "line"),
    _recipe("a tab in YAML", "  max_steps", "\tmax_steps", "recipe.yaml", "line"),
    _recipe(
        "a Python object in YAML",
        "model: base",
        "model: !!python/object/apply:os.system ['touch pwned']",
        "recipe.yaml",
        "line",
    ),
    _recipe("an empty data source", "train: t.tsv", "train: ''", "data.train"),
    _recipe("data that are not there", "t.tsv", "no.tsv", "no.tsv", "Correct or remove"),
    _recipe("data with a NUL in their name", "t.tsv", '"t\\0.tsv"', "data.train", "NUL"),
    _recipe("an output with a NUL in its name", "runs/new", '"runs\\0"', "output_dir", "NUL"),
    _recipe("a model with a NUL in its name", "model: base", 'model: "ba\\0se"', "model", "NUL"),
    _recipe("a model that is not there", "model: base", "model: ./nothing", "nothing", "It may be"),
    _recipe("a prompt without a text", "precision: fp32", "prompt: hello", "prompt"),
    _recipe(
        "layers to adapt that the model has not",
        "training:",
        "adapter:\n  target_modules: [nothing]\ntraining:",
        "nothing",
        "all-linear",
    ),
    _recipe(
        "more layers both ways than there are",
        "precision: fp32",
        "bidirectional_layers: 9",
        "bidirectional_layers",
        "Give a number",
    ),
    _recipe("a batch larger than the data", "batch_size: 6", "batch_size: 600", "batch_size", "600"),
    _recipe("more tokens a text than the model takes", "precision: fp32", "max_length: 999", "max_length", "128"),
    _recipe(
        "a development set that is not there",
        "training:",
        "evaluation:\n  dev: no.tsv\ntraining:",
        "no.tsv",
        "Correct or remove",
    ),
    Fault("a YAML bomb", TRAIN, "recipe.yaml", "write them out", put("recipe.yaml", _bomb())),
    Fault("a YAML bomb of merged keys", TRAIN, "recipe.yaml", "write them out", put("recipe.yaml", _merged_bomb())),
    Fault(
        "a YAML bomb in a setting",
        TRAIN,
        "recipe.yaml",
        "write them out",
        put("recipe.yaml", _bomb() + "data:\n  train: *a8\n"),
    ),
    Fault(
        "a YAML alias that holds itself",
        TRAIN,
        "recipe.yaml",
        "write them out",
        put("recipe.yaml", "data: &a\n  train: *a\n"),
    ),
    Fault("YAML nested 2,000 deep", TRAIN, "recipe.yaml", "nested", put("recipe.yaml", "data: " + "[" * 2000)),
    Fault("a recipe in UTF-16", TRAIN, "recipe.yaml", "UTF-8", put("recipe.yaml", "data: {}".encode("utf-16"))),
    Fault("a recipe with a NUL byte", TRAIN, "recipe.yaml", "Correct it", put("recipe.yaml", "data: \0\n")),
    Fault("a recipe that is a list", TRAIN, "recipe.yaml", "training:", put("recipe.yaml", "- a\n")),
    Fault("an empty recipe", TRAIN, "output_dir", "--output_dir", put("recipe.yaml", "")),
    Fault("a recipe that is not there", "train --config no.yaml", "no.yaml", "Check the path"),
    Fault("a recipe that is a folder", "train --config sts", "sts", "Name a file"),
    Fault("a recipe that is a pipe", TRAIN, "recipe.yaml", "Name a file", fifo("recipe.yaml")),
    Fault("a recipe that is a device", "train --config /dev/zero", "/dev/zero", "Name a file"),
    Fault("a recipe in a circle of links", TRAIN, "recipe.yaml", "Name a file", link("recipe.yaml", to="recipe.yaml")),
    Fault(
        "a recipe that may not be read",
        TRAIN,
        "recipe.yaml",
        "Name a file",
        without_rights("recipe.yaml"),
        is_of_rights=True,
    ),
    Fault(
        "a sweep without axes",
        "sweep --config sweep.yaml",
        "axes",
        FIX,
        put("sweep.yaml", "recipe: recipe.yaml\noutput_dir: s\n"),
    ),
    Fault(
        "a sweep over a setting that is not known",
        "sweep --config sweep.yaml",
        "adapter.lora_x",
        FIX,
        replace("sweep.yaml", "lora_r", "lora_x"),
    ),
    Fault(
        "a sweep whose values are none of a setting's",
        "sweep --config sweep.yaml",
        "lora_r",
        FIX,
        replace("sweep.yaml", "[2, 4]", "[two, 4]"),
    ),
    Fault(
        "a sweep of a recipe that is not there",
        "sweep --config sweep.yaml",
        "no.yaml",
        "Check the path",
        replace("sweep.yaml", "recipe.yaml", "no.yaml"),
    ),
    Fault(
        "a sweep with seeds that are none",
        "sweep --config sweep.yaml",
        "seeds",
        FIX,
        replace("sweep.yaml", "[7]", "[x]"),
    ),
    Fault(
        "a sweep that is a YAML bomb",
        "sweep --config sweep.yaml",
        "sweep.yaml",
        "write them out",
        put("sweep.yaml", _bomb()),
    ),
    Fault("a grid without values", "sweep --config recipe.yaml --grid lora_r= --output_dir s", "lora_r", FIX),
    Fault(
        "a search over nothing",
        "optimize --config search.yaml",
        "space",
        FIX,
        replace("search.yaml", "space:\n  adapter.lora_r: [2, 4]\n", ""),
    ),
    Fault(
        "a search with a range upside down",
        "optimize --config search.yaml",
        "learning_rate",
        FIX,
        replace("search.yaml", "adapter.lora_r: [2, 4]", "training.learning_rate: {low: 1.0e-2, high: 1.0e-4}"),
    ),
    Fault("a search of no trials", "optimize --config search.yaml --trials 0", "trials", FIX),
    Fault(
        "a search whose trials are a word",
        "optimize --config search.yaml",
        "trials",
        FIX,
        replace("search.yaml", "trials: 2", "trials: many"),
    ),
]
