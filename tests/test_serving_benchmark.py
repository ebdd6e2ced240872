"""The load test, on a real server in small: every answer is counted and compared, and the tables say what was found."""

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.serving.served_model import serve_model
from tests.serving.running import running
from tests.tiny import TEXTS

pytest.importorskip("aiohttp", reason="the load test needs aiohttp: pip install 'embedsmith[bench]'")

from benchmarks.clients import Load, OneClient, Texts, make_body, put_load
from benchmarks.servers import API_KEY, MODEL_NAME
from benchmarks.serving import time_bad
from benchmarks.serving_tables import load_table, short_line


def test_every_answer_is_counted_and_compared(model_folders: dict[str, str]) -> None:
    """Cosine at least 0.9999999, as in tests/serving; nothing where the server has nothing to do with the texts."""
    embedder = Embedder.load(model_folders["llama"], precision="fp32", max_length=64)
    texts = list(dict.fromkeys(TEXTS))
    wanted = Texts(texts, embedder.encode(texts))
    with running(serve_model(embedder, name=MODEL_NAME), api_key=API_KEY) as served:
        load = put_load(served.url, wanted, num_clients=8, seconds=0.5, seed=0, count_bytes=iter([5, 7]).__next__)
        assert load.resident_bytes == [(5, 7)]
        assert len(load.seconds) >= 8 and not load.faults
        assert min(load.cosines) > 0.9999999
        assert f'embedsmith_requests_total{{route="/v1/embeddings",status="200"}} {len(load.seconds)}.0' in (
            served.client.get("/metrics", headers={"authorization": f"Bearer {API_KEY}"}).text
        )
        turned = put_load(served.url, Texts(texts, np.roll(wanted.rows, 1, axis=0)), num_clients=1, seconds=0.1, seed=0)
        assert max(turned.cosines) < 0.9999
        client = OneClient(served.url)
        assert client.post(make_body("a cat"))[0] == 200
        client.close()
        statuses = [status for status, _ in time_bad(served.url).values()]
        assert statuses == [413, 413, 400, 400, 422, 404, 401]
    gone = put_load(served.url, wanted, num_clients=1, seconds=0.05, seed=0)
    assert not gone.seconds and gone.faults["ClientConnectorError"] > 0


def _load(*, seconds: list[float], rate: float) -> Load:
    return Load(
        8, len(seconds) / rate, seconds, [0.999] * len(seconds), resident_bytes=[(10**9, 2 * 10**9)], rates=[rate]
    )


def test_rounds_are_added_up_and_shown() -> None:
    ours, theirs = _load(seconds=[0.1] * 99 + [0.5], rate=40.0), _load(seconds=[0.3] * 10, rate=10.0)
    ours.add(_load(seconds=[0.2] * 100, rate=20.0))
    theirs.add(_load(seconds=[0.3] * 10, rate=10.0))
    theirs.faults["503"] += 2
    rows = [{"server": "embedsmith", **ours.summary()}, {"server": "another", **theirs.summary()}]
    assert (rows[0]["answered"], rows[0]["seconds"]) == (200, 7.5)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in load_table(rows).splitlines()[2:]]
    assert lines[0][2:4] == ["26.7", "1.00 (1.00, 1.00)"]
    assert lines[0][-1] == "1.000 2.000, 1.000 2.000"
    assert lines[1][2:8] == ["10.0", "3.00 (4.00, 2.00)", "300.0", "300.0", "20", "2 of 503"]


def test_one_short_text_is_shown_beside_encode() -> None:
    line = short_line([(0.012, 0.010), (0.013, 0.010), (0.011, 0.010)])
    assert "12.00 ms by the server, 10.00 ms by `encode`" in line and "1.20 (1.15 to 1.25) times; 3 times each" in line
