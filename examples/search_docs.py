# %% [markdown]
"""
# Search in this project's documentation

A reader asks in words of their own: which section answers? The model that comes with embedsmith was tuned on sentence
pairs. Here it learns these pages in some minutes, from their own headings and sentences with mined negatives, and is
asked questions that it has not seen.
"""

# %%
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from embedsmith import load_config, train
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.reporting.plots import COLOURS, STYLE
from examples.gallery import ENCODER, MODEL, NAMES, STEPS, embedsmith
from examples.own_docs import make, read_own_pages, text_of, title_of

OUT = Path("runs/gallery/search_docs")
TUNED = str(OUT / "tuned")

# %% [markdown]
# **The data**: pairs from the pages, and questions that were written for them, each with the section that answers it.

# %%
shutil.rmtree(OUT, ignore_errors=True)  # of a run before
print(make(OUT))

# %% [markdown]
# **Negatives**: for each row a text that the encoder takes for near, and that is not its own.

# %%
embedsmith(f"data mine {OUT}/pairs.jsonl --model {ENCODER} --num-negatives 1 --out {OUT}/mined.jsonl")

# %% [markdown]
# **Training**, with the recipe for a body of text, shortened.

# %%
changed = {"output_dir": TUNED, "data.train": f"{OUT}/mined.jsonl", "model.model": MODEL}
shorter = {"max_steps": STEPS, "batch_size": "16", "warmup_steps": "3"}
run = train(load_config("recipes/documentation-search.yaml", overrides={**changed, **shorter}))
print(f"{run.outcome.num_tokens:,} tokens in {run.outcome.elapsed_s:.0f} s")

# %% [markdown]
# **Is it better?** nDCG@10 of the questions put aside for the test; each model against the first.

# %%
models = {ENCODER: "minilm", MODEL: "before", TUNED: "tuned"}
for model, name in models.items():
    embedsmith(f"evaluate {model} --data {OUT}/test --out {OUT}/{name}.json")
embedsmith("compare " + " ".join(f"{OUT}/{name}.json" for name in models.values()))

# %% [markdown]
# **A search**:

# %%
sections = read_own_pages(Path("docs"))
passages = run.embedder.encode([text_of(one) for one in sections])  # later: Embedder.load(TUNED)
query = run.embedder.encode(["My GPU runs out of memory"], side="query")[0]
for row in np.argsort(-passages @ query)[:3]:
    print(f"{passages[row] @ query:.2f}  {title_of(sections[row])}")

# %% [markdown]
# **The picture**: where in the list of results the answer stands.

# %%
plt.rcParams.update(STYLE)
figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
places = {"first": 1.0, "second or third": 0.7, "fourth to tenth": 0.4, "further down": 0.1}
names = [*(NAMES[model] for model in (ENCODER, MODEL)), f"the same, after {STEPS} steps"]
scores = [load_evaluation(OUT / f"{name}.json").queries["questions"].ndcg_at_10 for name in models.values()]
shares = np.array([np.histogram(own, [0, 0.01, 0.49, 0.99, 1.01])[0][::-1] / len(own) for own in scores])  # by place
for column, (place, shade) in enumerate(places.items()):
    before = shares[:, :column].sum(axis=1)
    bars = axes.barh(names, shares[:, column], left=before, color=(COLOURS[2], shade), label=place)
    axes.bar_label(bars, fmt="{:.0%}", label_type="center", color="white" if shade > 0.5 else STYLE["text.color"])
axes.invert_yaxis()
axes.set(title=f"Where the answer to {len(scores[0])} questions stands", xticks=[])
axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0))
figure.savefig(OUT / "picture.png", dpi=110, transparent=True)
