"""schemathesis against the OpenAPI document: whatever it thinks of, the server never fails (no 5xx), and answers as the
document says."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from embedsmith.model.embedder import Embedder
from tests.serving.running import Running, running

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'embedsmith[dev]'")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
NUM_REQUESTS = 15  # of each route; 100 of each, drawn anew, were tried once


@pytest.fixture(scope="module")
def served(model_folders: dict[str, str]) -> Iterator[Running]:
    with running(Embedder.load(model_folders["llama"], precision="fp32", max_length=16)) as server:
        yield server


def test_answers_are_as_the_document_says(served: Running) -> None:
    document = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    names = []
    for found in document.get_all_operations():
        operation = found.ok()
        names.append(operation.label)

        @settings(max_examples=NUM_REQUESTS, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.as_strategy())
        def check(case: object) -> None:
            # What fits the document may be refused: no such model, token ids that are none of its own.
            case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])

        check()
    assert len(names) == 9
