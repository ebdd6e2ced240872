"""Side-by-side measurements: embedsmith against the tools people use for the same work, on the same machine and texts.

python -m benchmarks [--triplets FILE ...] [--sts FILE] [--parts step encode ...]

__main__.py    the command line
plans.py       what is compared: training step, GradCache, encoding, growth, families, start; scale.py how large
runner.py      plans -> rows: variants in groups that fit the memory
variants.py    who is compared: a table
texts.py       real texts -> batches, long texts, sentences
models.py      model folders: plain tokenizer, random weights of other families
pool.py        one process per variant, asked in turn, so that all of them meet the same moods of the machine
protocol.py    what is said to a worker process and what it answers: JSON lines
worker.py      a worker process; workers/ holds one file per tool
machine.py     what the machine can do: matrix peak, memory bandwidth
rows.py        medians, spreads, ratios; docs/performance.json
render.py      performance.json -> docs/performance.md; tables.py and plots.py
peers/         trainers and servers with an environment of their own

Commands of their own: paper.py (the paper's arms with any model; paper_results.py, paper_tables.py and paper_plot.py
put them beside the paper), quality.py (tuned models beside what is free; quality_page.py shows it, and
sentence_transformers_nli.py makes what that tool makes of the same data and time), scaling.py (curves of quality
against data or steps), training_step.py (seconds and memory of a step on triplets of your own), products.py (what a
block's parts can be made of), int8.py (what integer products would cost in quality), vectors.py (what smaller vectors
and a static model cost), exports.py (what every form of an export costs), drift.py (what bf16 changes), serving.py
(servers under load: servers.py starts them, clients.py asks them, serving_tables.py shows it), serving_parts.py (what a
request is made of), scoring.py (intervals and the comparison of two models), many_texts.py (memory while a million
texts are encoded), large_data.py (starting to train on more than memory holds), gpu.py (a step on a GPU, where there is
one), exchange.py (what processes exchange in a step, and what one costs on many GPUs by that).
"""
