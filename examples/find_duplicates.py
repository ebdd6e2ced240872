# %% [markdown]
"""
# Which of these texts say the same?

Two catalogues describe the same things, each in its own words: here the functions of NumPy and of torch. Those of one
name are known to be the same. Half of them tell from which similarity on two descriptions are duplicates, the other
half how often that is right; then come functions that do the same under different names.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import classification_report, precision_recall_curve

from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.reporting.plots import COLOURS, STYLE
from examples.array_functions import NUMPY, TORCH, read_functions
from examples.beyond_sts import by_key, duplicates, pair_row
from examples.documentation import write_rows
from examples.gallery import ENCODER, MODEL, NAMES, embedsmith

OUT = Path("runs/gallery/find_duplicates")

# %% [markdown]
# **The pairs.** Each one of one name is followed by one that is none: the same function of NumPy, and that of torch's
# others which shares the most words with it. So counting words does not tell them apart. Which model does?

# %%
numpy, torch = read_functions(*NUMPY), read_functions(*TORCH)
pairs = duplicates(by_key({"numpy": numpy, "torch": torch}))
write_rows(OUT / "data" / "functions.jsonl", map(pair_row, pairs))
embedsmith(f"compare {ENCODER} {MODEL} --data {OUT / 'data'}")

# %% [markdown]
# **A threshold**, chosen on every second function. The others test it.

# %%
is_same = np.array([pair.is_duplicate for pair in pairs])
is_test = np.arange(len(pairs)) // 2 % 2 == 1  # a pair and the near one behind it stay together
models = {name: load_embedding_model(name) for name in (MODEL, ENCODER)}
cosines = {}
for name, model in models.items():
    first = model.encode([pair.first.query for pair in pairs])
    second = model.encode([pair.second.query for pair in pairs])
    cosines[name] = (first * second).sum(axis=1)
precision, recall, thresholds = precision_recall_curve(is_same[~is_test], cosines[MODEL][~is_test])
threshold = thresholds[np.argmax((precision * recall / np.maximum(precision + recall, 1e-9))[:-1])]  # the best F1
print(f"duplicates: from a cosine of {threshold:.2f} on")
print(classification_report(is_same[is_test], cosines[MODEL][is_test] >= threshold, target_names=["near", "same"]))

# %% [markdown]
# **What nobody had labelled**: functions whose name the other library does not have, and the nearest one there.

# %%
by_name = [{entry.name.split(".")[-1]: entry for entry in entries} for entries in (numpy, torch)]
ours, theirs = ([own[name] for name in own if name not in others] for own, others in (by_name, by_name[::-1]))
near = models[MODEL].encode([one.query for one in ours]) @ models[MODEL].encode([one.query for one in theirs]).T
for row in np.argsort(-near.max(axis=1))[:10]:
    print(f"{near[row].max():.2f}  {ours[row].name:24}  {theirs[near[row].argmax()].name}")

# %% [markdown]
# **The picture**: how far the threshold parts the two kinds, and what other thresholds would give.

# %%
plt.rcParams.update(STYLE)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for kind, label, colour in ((False, "near ones", COLOURS[0]), (True, "duplicates", COLOURS[1])):
    left.hist(cosines[MODEL][is_same == kind], bins=30, alpha=0.6, color=colour, label=label)
left.axvline(threshold, color=COLOURS[2])
left.set(title=f"Pairs by similarity ({NAMES[MODEL]})", xlabel="cosine")
for name, colour in ((MODEL, COLOURS[2]), (ENCODER, COLOURS[3])):
    precision, recall, _ = precision_recall_curve(is_same[is_test], cosines[name][is_test])
    right.plot(recall, precision, color=colour, label=NAMES[name])
right.set(title="The half that tests", xlabel="recall", ylabel="precision", ylim=(0.4, 1.02))
for axes in (left, right):
    axes.legend()
figure.savefig(OUT / "picture.png", dpi=110, transparent=True)
