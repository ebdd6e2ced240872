"""Synthetic triplets, asked of a real HTTP server on this machine that answers by what it is asked."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedsmith.cli import run_command
from embedsmith.data.chat import ChatEndpoint
from embedsmith.data.synthesis_prompts import TASK_TYPES
from embedsmith.data.synthesize import Outcome, Synthesis, synthesize
from embedsmith.data.triplets import load_triplets
from embedsmith.support.errors import ConfigError, DataError, EmbedsmithError
from tests.chat_server import Answer, good
from tests.chat_server import ChatServer as Server


def _serve() -> Iterator[Server]:
    one = Server()
    yield one
    one.server.shutdown()
    one.server.server_close()


server = pytest.fixture(_serve, name="server")
another_server = pytest.fixture(_serve, name="another_server")


def _synthesis(**changes: object) -> Synthesis:
    settings = {"model": "m", "task_types": tuple(TASK_TYPES), "languages": ("English", "German"), "seed": 3}
    return Synthesis(**{**settings, "temperature": 1.0, **changes})


def _run(server: Server, out: Path, *, num_triplets: int = 12, **changes: object) -> Outcome:
    endpoint = ChatEndpoint(server.url, "m", "NO_SUCH_KEY", timeout_s=60, pause_s=0.01)
    settings = {"concurrency": 3, **changes}
    return synthesize(_synthesis(), endpoint=endpoint, out=out, num_triplets=num_triplets, **settings)


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_kind_of_task_gives_triplets_that_the_reader_takes(server: Server, tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "s.jsonl"
    assert _run(server, out).num_triplets == 12
    rows = _rows(out)
    assert {row["task_type"] for row in rows} == set(TASK_TYPES)
    assert len({row["anchor"] for row in rows}) == 12
    assert {row["language"] for row in rows if row["task_type"] == "bitext"} <= {"English-German", "German-English"}
    table = load_triplets([str(out)])
    loaded = table.rows(np.arange(12))
    assert loaded.instructions == [row["instruction"] for row in rows]
    assert loaded.negatives == [[row["negative"]] for row in rows]
    num_lists = sum("JSON list" in body["messages"][0]["content"] for body in server.requests)
    assert num_lists == sum(kind.needs_tasks for kind in TASK_TYPES.values())


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    server: Server, another_server: Server, tmp_path: Path
) -> None:
    _run(server, tmp_path / "whole.jsonl")
    _run(server, tmp_path / "killed.jsonl", num_triplets=5)
    killed = tmp_path / "killed.jsonl"
    killed.write_text(killed.read_text() + '{"instruction": "cut sho')
    outcome = _run(another_server, killed)  # the first one may still hear of requests that were under way
    assert _rows(killed) == _rows(tmp_path / "whole.jsonl")
    assert outcome.num_requests == 7
    assert len(another_server.requests) <= 7 + 3  # those under way when it was enough
    assert not any("JSON list" in body["messages"][0]["content"] for body in another_server.requests)
    assert _run(server, killed).num_requests == 0


def test_unusable_answers_are_left_out_and_counted(server: Server, tmp_path: Path) -> None:
    bad = [
        "no JSON",
        "[1]",
        json.dumps({"anchor": "a", "positive": "p"}),
        json.dumps({"anchor": " ", "positive": "p", "negative": "n"}),
        json.dumps({"anchor": "a", "positive": "P x", "negative": "p  X"}),
        json.dumps({"anchor": "the same", "positive": "p", "negative": "n"}),
        json.dumps({"anchor": "The  SAME", "positive": "p2", "negative": "n2"}),
    ]
    answers = iter(bad)

    def script(prompt: str, number: int) -> Answer | None:
        return None if "JSON list" in prompt else (200, {}, next(answers, good(prompt)))

    server.script = script
    outcome = _run(server, tmp_path / "s.jsonl", num_triplets=4, concurrency=1)
    assert outcome.rejected == {
        "no JSON object": 2,
        "negative is missing": 1,
        "anchor is empty": 1,
        "two texts alike": 1,
        "told before": 1,
    }
    assert _rows(tmp_path / "s.jsonl")[0]["anchor"] == "the same"


def test_a_busy_endpoint_is_asked_again(server: Server, tmp_path: Path) -> None:
    troubles = iter([(429, {"retry-after": "0"}, "busy"), (500, {}, "oops"), (503, {}, "oops")])
    server.script = lambda prompt, number: None if "JSON list" in prompt else next(troubles, None)
    assert _run(server, tmp_path / "s.jsonl", num_triplets=3, concurrency=1).num_triplets == 3


@pytest.mark.parametrize(("status", "advice"), [(401, "valid key"), (403, "may not use"), (404, "ends in /v1")])
def test_a_refusal_ends_at_once(server: Server, tmp_path: Path, status: int, advice: str) -> None:
    server.script = lambda prompt, number: (status, {}, "no")
    with pytest.raises(DataError, match=advice):
        _run(server, tmp_path / "s.jsonl")
    assert len(server.requests) == 1


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    endpoint = ChatEndpoint("http://127.0.0.1:9/v1", "m", "NO_SUCH_KEY", timeout_s=1, pause_s=0.001)
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/v1 does not answer after"):
        synthesize(_synthesis(), endpoint=endpoint, out=tmp_path / "s.jsonl", num_triplets=1)


def test_what_is_no_chat_endpoint_is_told_so(server: Server, tmp_path: Path) -> None:
    server.script = lambda prompt, number: (201, {}, "<html>")
    with pytest.raises(DataError, match="does not answer as a chat endpoint does: <html>"):
        _run(server, tmp_path / "s.jsonl")


def test_a_model_that_cannot_do_it_ends_the_run(server: Server, tmp_path: Path) -> None:
    server.script = lambda prompt, number: None if "JSON list" in prompt else (200, {}, "Sure! Here you go")
    with pytest.raises(DataError, match=r"30 answers in a row were unusable, most of them: no JSON object.*Sure!"):
        _run(server, tmp_path / "s.jsonl")


def test_other_settings_need_another_file(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    _run(server, out, num_triplets=2)
    endpoint = ChatEndpoint(server.url, "m", "NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="begun with other settings: seed was 3, is 4"):
        synthesize(_synthesis(seed=4), endpoint=endpoint, out=out, num_triplets=3)
    out.write_text("{}\n")
    with pytest.raises(DataError, match="was not written by this command"):
        _run(server, out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"task_types": ("poems",)}, "names poems; it may name short-long"), ({"languages": ("English",)}, "needs two")],
)
def test_settings_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _synthesis(**changes)


def test_the_command_and_the_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-123")
    out = tmp_path / "s.jsonl"
    command = ["data", "synthesize", "--out", str(out), "--endpoint", server.url, "--model", "m", "--num-triplets", "4"]
    assert run_command([*command, "--task-types", "sts", "short-short", "--api-key-env", "MY_KEY"]) == 0
    printed = capsys.readouterr()
    assert "4 triplets in" in printed.out
    assert all(headers["authorization"] == "Bearer secret-123" for headers in server.headers)
    written = out.read_text() + (tmp_path / "s.tasks.jsonl").read_text() + printed.out + printed.err
    assert "secret-123" not in written
    assert run_command([*command, "--task-types", "poems"]) == 2


def _triplet(prompt: str, **changes: str) -> str:
    mark = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    texts = {"anchor": f"q {mark}", "positive": f"right {mark}", "negative": f"wrong {mark}", **changes}
    return json.dumps(texts, ensure_ascii=False)


MARKS = "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e"


def test_a_file_with_any_line_separator_goes_on(server: Server, tmp_path: Path) -> None:
    server.script = lambda prompt, number: (
        None if "JSON list" in prompt else (200, {}, _triplet(prompt, positive=f"a{MARKS}b"))
    )
    out = tmp_path / "s.jsonl"
    _run(server, out, num_triplets=3)
    before = out.read_bytes()
    assert "\u2028".encode() in before
    assert _run(server, out, num_triplets=5).num_triplets == 5
    assert out.read_bytes().startswith(before)
    assert [row["positive"] for row in _rows(out)] == [f"a{MARKS}b"] * 5


OWN_LINE = (
    '{"instruction": "i", "task_type": "sts", "language": "English", "anchor": "a", "positive": "p", "negative": "n",'
    ' "request": 0}\n'
)


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "mine"}\n{"text": "without a line end"}',
        b'{"text": "mine, in one line"}',
        b"mine\n",
        b"\xff\xfe\x00",
        b"\n",
        b'{"anchor": "a", "positive": "p", "negative": "n", "request": 0}\n',
        OWN_LINE.encode() + b"mine",
        OWN_LINE.encode() * 2,
        OWN_LINE.replace('"i"', '"i", "instruction": "j"').encode(),
        OWN_LINE.replace(": 0", ": true").encode(),
        OWN_LINE.replace("}", ', "mine": 1}').encode(),
        OWN_LINE.encode()[:-30],  # a line of ours cut short, but without the file that is written before
    ],
)
def test_a_foreign_file_is_never_touched(server: Server, tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "s.jsonl"
    out.write_bytes(content)
    with pytest.raises(DataError, match="was not written by this command; nothing was changed"):
        _run(server, out)
    assert out.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]
    assert server.requests == []


@pytest.mark.parametrize("content", ["mine", "[1]", '{"tasks": {}}', '{"settings": {}, "tasks": {"sts": [3]}}'])
def test_a_foreign_file_of_tasks_is_never_touched(server: Server, tmp_path: Path, content: str) -> None:
    tasks = tmp_path / "s.tasks.jsonl"
    tasks.write_text(content)
    with pytest.raises(DataError, match=r"s\.tasks\.jsonl was not written by this command"):
        _run(server, tmp_path / "s.jsonl")
    assert tasks.read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["s.tasks.jsonl"]


def test_other_settings_leave_a_line_cut_short_alone(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    _run(server, out, num_triplets=2)
    out.write_bytes(out.read_bytes() + b'{"instruction": "cut')
    before = out.read_bytes()
    endpoint = ChatEndpoint(server.url, "m", timeout_s=60, pause_s=0.01)
    with pytest.raises(ConfigError, match="seed was 3, is 4"):
        synthesize(_synthesis(seed=4), endpoint=endpoint, out=out, num_triplets=3)
    assert out.read_bytes() == before


def test_outputs_that_cannot_be(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name, message in (("s.tsv", "ends in .jsonl"), ("s.jsonl.gz", "ends in .jsonl"), ("folder.jsonl", "a folder")):
        with pytest.raises(EmbedsmithError, match=message):
            _run(server, tmp_path / name)
    assert server.requests == []


def test_settings_that_cannot_be(server: Server) -> None:
    for changes in ({"languages": ("English", " ")}, {"temperature": float("nan")}, {"temperature": -1.0}):
        with pytest.raises(ConfigError, match=f"--{next(iter(changes))}"):
            _synthesis(**changes)
    for url in ("localhost:8000/v1", "", "http://\0"):
        with pytest.raises(ConfigError, match="--endpoint is"):
            ChatEndpoint(url, "m").ask("?", seed=0)


@pytest.mark.parametrize(
    "answer",
    [
        '<think>\nA query {maybe} with [brackets], and {"anchor": "draft"}.\n</think>\n\nTRIPLET',
        '<think>One draft: {"anchor": "d", "positive": "e", "negative": "f"}</think>TRIPLET',
        "the template opened the tag</think>TRIPLET",
        "<THINKING>hm</THINKING> ```json\nTRIPLET\n``` I hope that helps {:}",
        "Sure! Here it is:\n\n```\nTRIPLET\n```",
        'The keys are {"anchor", "positive"}, so: TRIPLET. A note: {"note": "done"} [1]',
        '{"anchor": "d", "positive": "e", "negative": "f"} or better:\nTRIPLET',
        '[{"anchor": "x", "positive": "x", "negative": "y"}, TRIPLET]',
        '{"triplet": TRIPLET}',
        "TRIPLET {",
    ],
)
@pytest.mark.parametrize("text", ["plain", 'a } and { and ] or \\"quoted\\" </think> <think>', "two\nlines\t"])
def test_the_json_is_found_wherever_it_stands(server: Server, tmp_path: Path, answer: str, text: str) -> None:
    server.script = lambda prompt, number: (
        (200, {}, f'<think>A list ["of", "drafts"]</think> 1. {good(prompt)}')
        if "JSON list" in prompt
        else (200, {}, answer.replace("TRIPLET", _triplet(prompt, positive=text)))
    )
    outcome = _run(server, tmp_path / "s.jsonl", num_triplets=6, max_requests=6)
    assert (outcome.num_triplets, outcome.rejected) == (6, {})
    assert {row["positive"] for row in _rows(tmp_path / "s.jsonl")} == {text.strip()}
    assert all("thing" in row["instruction"] for row in _rows(tmp_path / "s.jsonl") if row["task_type"] in NEED_TASKS)


NEED_TASKS = [name for name, kind in TASK_TYPES.items() if kind.needs_tasks]


def test_line_breaks_inside_of_strings_are_read(server: Server, tmp_path: Path) -> None:
    server.script = lambda prompt, number: (
        None if "JSON list" in prompt else (200, {}, _triplet(prompt, positive="P Q").replace("P Q", "P\nQ"))
    )
    _run(server, tmp_path / "s.jsonl", num_triplets=1)
    assert _rows(tmp_path / "s.jsonl")[0]["positive"] == "P\nQ"


def test_an_answer_in_parts_is_put_together(server: Server) -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    server.script = lambda prompt, number: (201, {}, json.dumps({"choices": [{"message": {"content": parts}}]}))
    assert ChatEndpoint(server.url, "m").ask("?", seed=0) == "ab"


@pytest.mark.parametrize(
    ("answer", "fault", "advice"),
    [
        ("", "empty answer", "limit on their tokens"),
        ('<think>and then {"anchor": "d", "positive": "e", "negative": "f"}', "thinking that never ends", "switch the"),
        ('<think>{"anchor": "d", "positive": "e", "negative": "f"}</think> Done.', "no JSON object", "was asked for"),
        ('{"anchor": "a", "positive": "and then', "JSON cut short", "limit on their tokens"),
        ('{"anchor": "a",', "JSON cut short", "limit on their tokens"),
        ('{"anchor": "a", "anchor": "b"}', "a name twice in its JSON", "was asked for"),
        (
            '{"query": "a"}',
            "JSON without anchor, positive, negative",
            "JSON object with anchor, positive, negative was",
        ),
        ('{"anchor": "a", "positive": ["p"], "negative": "n"}', "positive must be a text", "was asked for"),
        ('{"anchor": "a", "positive": "p", "negative": "\\ud83d"}', "negative holds half of a surrogate", "asked for"),
        ('{"anchor": "a", "positive": "p", "negative": "n"}', "told before", "--task-types"),
        ("[" * 1500, "JSON cut short", "limit on their tokens"),
    ],
)
def test_the_end_of_a_hopeless_run_says_why(
    server: Server, tmp_path: Path, answer: str, fault: str, advice: str
) -> None:
    server.script = lambda prompt, number: None if "JSON list" in prompt else (200, {}, answer)
    with pytest.raises(DataError, match=rf"30 answers in a row were unusable, most of them: {fault}") as caught:
        _run(server, tmp_path / "s.jsonl")
    assert advice in str(caught.value)
    assert "larger model" not in str(caught.value)
    assert repr(answer[:200])[:-1] in str(caught.value)


def test_reasons_of_a_hopeless_run_are_counted(server: Server, tmp_path: Path) -> None:
    server.script = lambda prompt, number: None if "JSON list" in prompt else (200, {}, "no" if number % 3 else "{}")
    with pytest.raises(DataError, match=r"no JSON object \(20\), JSON without anchor, positive, negative \(10\)"):
        _run(server, tmp_path / "s.jsonl", concurrency=1)


def test_no_tasks_says_why(server: Server, tmp_path: Path) -> None:
    for answer, fault in (
        ("1. Find a thing", "no JSON list of texts"),
        ('["Find a', "JSON cut short"),
        ("[1]", "no JS"),
    ):
        server.script = lambda prompt, number, answer=answer: (200, {}, answer)
        with pytest.raises(DataError, match=f"the model gave none: {fault}") as caught:
            _run(server, tmp_path / "s.jsonl")
        assert repr(answer) in str(caught.value)
