"""Faulty data files."""

from tests.faults.fault import Fault, cut, fifo, folder, link, put, put_packed, replace, without_rights

HEADER = "anchor\tpositive\tnegative\n"
ROW = "w1 cat\tw1 animal\tw2 roof\n"
SOUND = HEADER + ROW * 3
STATS = "data stats {} --model base"
BEIR = "data check t.tsv --against beir"
CORRECT = "Correct or remove these"


def _stats(what: str, name: str, content: str | bytes, place: str) -> Fault:
    return Fault(what, STATS.format(name), place, CORRECT, put(name, content))


def _cut_parquet() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"anchor": ["a", "b"], "positive": ["c", "d"]}), "x.parquet")
    cut("x.parquet", keep=0.7)()


FAULTS = [
    _stats("data in Latin-1", "x.tsv", (HEADER + "caf\u00e9\ta\tb\n").encode("latin-1"), "x.tsv, line 2: is not UTF-8"),
    _stats("data in UTF-16", "x.tsv", SOUND.encode("utf-16"), "x.tsv: is UTF-16"),
    _stats("data with a NUL byte", "x.tsv", HEADER + "a\0\tb\tc\n", "x.tsv, line 2: holds a NUL byte"),
    _stats("data that are NUL bytes", "x.tsv", b"\0" * 10_000, "x.tsv: is UTF-16 or UTF-32"),
    _stats("an empty file", "x.tsv", "", "x.tsv: is empty"),
    _stats("a header without rows", "x.tsv", HEADER, "x.tsv: is empty"),
    _stats("a row with a field less", "x.tsv", HEADER + "a\tb\n", "x.tsv, line 2: has 2 fields"),
    _stats("a row with a field more", "x.csv", "anchor,positive\na,b\na,b,c\n", "x.csv, line 3: has 3 fields"),
    _stats("a row with an empty field", "x.tsv", HEADER + "a\t \tc\n", "x.tsv, line 2"),
    _stats("a quote that is not closed", "x.csv", 'anchor,positive\na,"b\nc,d\n', "x.csv, line 2: is not valid CSV"),
    _stats("lines that end in a carriage return", "x.tsv", SOUND.replace("\n", "\r"), "x.tsv, line 1"),
    _stats("a column twice", "x.tsv", "anchor\tanchor\tpositive\na\tb\tc\n", "x.tsv, line 1: the name 'anchor'"),
    _stats("JSON lines that are no objects", "x.jsonl", "[1, 2]\n", "x.jsonl, line 1: must be a JSON object"),
    _stats("a JSON line cut short", "x.jsonl", '{"anchor": "a", "pos', "x.jsonl, line 1: is not valid JSON"),
    _stats("JSON nested 100,000 deep", "x.jsonl", '{"anchor": ' + "[" * 100_000, "x.jsonl, line 1: is not valid JSON"),
    _stats("a JSON name twice", "x.jsonl", '{"anchor": "a", "anchor": "b"}\n', "x.jsonl, line 1: the name 'anchor'"),
    _stats("a text that is a number", "x.jsonl", '{"anchor": "a", "positive": 7}\n', "x.jsonl, line 1"),
    _stats(
        "half of a surrogate pair", "x.jsonl", '{"anchor": "\\ud800", "positive": "b"}\n', "x.jsonl, line 1: anchor"
    ),
    _stats("a number of 5,000 digits", "x.jsonl", '{"anchor": ' + "9" * 5000 + "}\n", "x.jsonl, line 1"),
    _stats("a line of 100 MB without an end", "x.jsonl", b'{"anchor": "' + b"a" * 100_000_000, "x.jsonl, line 1"),
    _stats("a parquet file that is none", "x.parquet", "PAR1 nothing", "x.parquet: is not a readable parquet file"),
    _stats("parquet under another name", "x.jsonl", "PAR1 nothing", "x.jsonl: is parquet"),
    _stats("a file named .gz that is not", "x.tsv.gz", SOUND, "x.tsv.gz: is named .gz but is not gzip"),
    _stats("lists where texts belong", "x.jsonl", '{"anchor": ["a"], "positive": {"b": 1}}\n', "x.jsonl, line 1"),
    Fault(
        "gzip that is cut short",
        STATS.format("x.tsv.gz"),
        "x.tsv.gz, line",
        CORRECT,
        put_packed("x.tsv.gz", HEADER + ROW * 5000, keep=0.5),
    ),
    Fault(
        "a parquet file cut short",
        STATS.format("x.parquet"),
        "x.parquet: is not a readable parquet file",
        CORRECT,
        _cut_parquet,
    ),
    Fault("columns of other names", STATS.format("x.tsv"), "x.tsv", "--columns", put("x.tsv", "q\tr\na\tb\n")),
    Fault("a column that is not there", STATS.format("t.tsv --columns '{anchor: nothing}'"), "nothing", "anchor"),
    Fault("columns that are no mapping", STATS.format("t.tsv --columns anchor"), "--columns", "{anchor: text_a}"),
    Fault("columns that are no YAML", STATS.format("t.tsv --columns '{anchor: ['"), "--columns", "{anchor: text_a}"),
    Fault(
        "a folder in the place of a data file", STATS.format("x.tsv"), "x.tsv: is a folder", CORRECT, folder("x.tsv")
    ),
    Fault("a pipe that nobody writes into", STATS.format("x.tsv"), "x.tsv", CORRECT, fifo("x.tsv")),
    Fault(
        "a device in the place of a data file", STATS.format("x.tsv"), "x.tsv", CORRECT, link("x.tsv", to="/dev/zero")
    ),
    Fault("links in a circle", STATS.format("x.tsv"), "x.tsv", CORRECT, link("x.tsv", to="x.tsv")),
    Fault("a link to nothing", STATS.format("x.tsv"), "x.tsv", CORRECT, link("x.tsv", to="nothing.tsv")),
    Fault("a file that is not there", STATS.format("no.tsv"), "no.tsv: no such file", CORRECT),
    Fault("a pattern that matches nothing", STATS.format("'no*.tsv'"), "no*.tsv", CORRECT),
    Fault(
        "a file of an unknown format", STATS.format("x.docx"), "x.docx: unknown format", CORRECT, put("x.docx", SOUND)
    ),
    Fault("a file named twice", STATS.format("t.tsv ./t.tsv"), "the same data is named twice: as t.tsv", CORRECT),
    Fault(
        "data that may not be read", STATS.format("t.tsv"), "t.tsv", CORRECT, without_rights("t.tsv"), is_of_rights=True
    ),
    Fault("a name of 5,000 characters", STATS.format("a" * 5000 + ".tsv"), "aaaa", CORRECT),
    Fault(
        "scores that are no numbers",
        "evaluate base --data sts",
        "sts/dev.tsv, line 2",
        CORRECT,
        replace("sts/dev.tsv", "\t0.0", "\tmuch"),
    ),
    Fault(
        "a score that is not finite",
        "evaluate base --data sts",
        "sts/dev.tsv, line 2",
        CORRECT,
        replace("sts/dev.tsv", "\t0.0", "\tnan"),
    ),
    Fault(
        "an evaluation set of no kind",
        "evaluate base --data sts",
        "sts/x.tsv",
        "--columns",
        put("sts/x.tsv", "q\tr\na\tb\n"),
    ),
    Fault(
        "a task that is not in the folder", "evaluate base --data sts --tasks den", "no task den", "Did you mean dev?"
    ),
    Fault(
        "a folder without evaluation sets", "evaluate base --data empty", "empty", "It holds", put("empty/x.txt", "")
    ),
    Fault("an evaluation folder that is not there", "evaluate base --data nothing", "nothing", "Give a folder"),
    Fault("an evaluation folder that is a file", "evaluate base --data t.tsv", "t.tsv", "--data . --tasks t"),
    Fault(
        "two files of one task",
        "evaluate base --data sts",
        "dev.csv",
        "Keep one",
        put("sts/dev.csv", "sentence1,sentence2,score\na,b,1\n"),
    ),
    Fault(
        "a judgement of a document that is not there",
        BEIR,
        "beir/qrels/test.tsv, line 2",
        CORRECT,
        replace("beir/qrels/test.tsv", "d1", "d9"),
    ),
    Fault(
        "a corpus with an id twice",
        BEIR,
        "beir/corpus.jsonl, line 2",
        CORRECT,
        replace("beir/corpus.jsonl", "d2", "d1"),
    ),
    Fault(
        "a grade that is no whole number",
        BEIR,
        "beir/qrels/test.tsv, line 2",
        CORRECT,
        replace("beir/qrels/test.tsv", "\t1\n", "\t1.5\n"),
    ),
    Fault("judgements as a pipe", BEIR, "beir/qrels/test.tsv", CORRECT, fifo("beir/qrels/test.tsv")),
    Fault(
        "texts in Latin-1",
        "encode base x.txt --out x.npy",
        "x.txt, line 1: is not UTF-8",
        CORRECT,
        put("x.txt", b"caf\xe9\n"),
    ),
    Fault(
        "texts that are no lines but blanks", "encode base x.txt --out x.npy", "x.txt", CORRECT, put("x.txt", " \n\n")
    ),
    Fault("a text column that is not there", "encode base t.tsv --out x.npy", "t.tsv", "--text-column"),
    Fault(
        "a label that NLI does not know",
        "data triplets x.tsv --out o.tsv",
        "x.tsv, line 2",
        CORRECT,
        put("x.tsv", "premise\thypothesis\tlabel\na\tb\tperhaps\n"),
    ),
    Fault(
        "NLI pairs without a triplet",
        "data triplets x.tsv --out o.tsv",
        "x.tsv",
        "label",
        put("x.tsv", "premise\thypothesis\tlabel\na\tb\tneutral\n"),
    ),
    Fault(
        "output that is an input",
        "data triplets x.tsv --out x.tsv",
        "x.tsv",
        "another",
        put("x.tsv", "premise\thypothesis\tlabel\na\tb\tentailment\na\tc\tcontradiction\n"),
    ),
    Fault(
        "evaluation data for a leakage check that is not there", "data check t.tsv --against no.tsv", "no.tsv", CORRECT
    ),
    Fault("rows to write that are read", "data check t.tsv --against sts --drop t.tsv", "t.tsv", "another"),
    Fault(
        "a corpus to mine from that is damaged",
        "data mine t.tsv --model base --corpus x.jsonl --out o.tsv",
        "x.jsonl, line 1",
        CORRECT,
        put("x.jsonl", '{"text": 7}\n'),
    ),
    Fault(
        "a file that synthesis did not write",
        "data synthesize --endpoint http://127.0.0.1:1/v1 --model m --out x.jsonl",
        "x.jsonl",
        "Choose another --out",
        put("x.jsonl", '{"anchor": "mine"}\n'),
    ),
]
