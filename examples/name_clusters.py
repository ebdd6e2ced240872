# %% [markdown]
"""
# What are these texts about?

A heap of short texts falls into groups, and each group gets a name: here what functions of Python's standard library
are said to do. Which package each is from is known, and only used to look at what was found.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE
from sklearn.metrics import v_measure_score
from sklearn.metrics.cluster import contingency_matrix

from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.reporting.plots import STYLE
from examples.beyond_sts import clusters
from examples.documentation import read_package
from examples.gallery import ENCODER, MODEL, NAMES

OUT = Path("runs/gallery/name_clusters")
PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")

# %% [markdown]
# **The texts**: first sentences of docstrings, a hundred a package at most; one that names its package is left out.

# %%
entries = [entry for package in PACKAGES for entry in read_package(package, min_passage_words=0)]
texts, packages = zip(*clusters(entries, label_of=lambda entry: entry.name.partition(".")[0]), strict=True)
print(f"{len(texts)} texts of {len(set(packages))} packages")

# %% [markdown]
# **Groups**, as many as there are packages, by each model. V-measure is 0 where groups say nothing of packages, and 1
# where they are the packages.

# %%
for name in (ENCODER, MODEL):
    vectors = load_embedding_model(name).encode(list(texts))
    groups = KMeans(len(set(packages)), n_init=10, random_state=0).fit_predict(vectors)
    print(f"{NAMES[name]}: V-measure {v_measure_score(packages, groups):.3f}")

# %% [markdown]
# **Names**: the three words that most tell a group from the others.

# %%
words = TfidfVectorizer(stop_words="english", token_pattern=r"[a-z]{3,}")  # noqa: S106 (no password)
weights = words.fit_transform(" ".join(np.array(texts)[groups == group]) for group in range(groups.max() + 1))
ranked = np.argsort(-weights.toarray(), axis=1)[:, :3]
names = [f"{', '.join(words.get_feature_names_out()[row])}   {number}" for number, row in enumerate(ranked, start=1)]
print("\n".join(names))

# %% [markdown]
# **The picture**: a map of the texts, near ones near each other; and from which packages each group is.

# %%
plt.rcParams.update(STYLE)
places = TSNE(metric="cosine", init="random", random_state=0).fit_transform(vectors)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(5, 3))
left.scatter(*places.T, color=plt.get_cmap("tab10")(groups), s=7)
for group in range(len(names)):
    middle = np.median(places[groups == group], axis=0)
    left.annotate(str(group + 1), middle, color="black", bbox={"boxstyle": "circle", "facecolor": "white"})
left.set(title=f"{len(texts)} texts in {len(names)} groups", xticks=[], yticks=[])
right.imshow(contingency_matrix(groups, packages), cmap="Blues", aspect="auto")
right.set(title="Where the texts of a group are from")
right.set_yticks(range(len(names)), names)
right.set_xticks(range(len(set(packages))), sorted(set(packages)), rotation=40, ha="right")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "picture.png", dpi=110, transparent=True)
