"""An adapter's folder as transformers and peft alone run it: equal to the run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

from embedsmith.cli import run_command
from embedsmith.export.peft_files import export_peft
from embedsmith.export.placing import place_prompts
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Side
from embedsmith.support.errors import ConfigError
from tests.made_tokenizers import SPECIAL, save_with
from tests.tiny import TEXTS
from tests.tuned import save_tuned

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's
ALL = [*TEXTS, "x", " a  cat ", "Ünï 東京 🙂", "a cat runs away " * 20, "stop at </s>", *SPECIAL]


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompt": "pretended-cot", "end_token": False, "max_length": 120},
        {"pooling": "mean", "prompt": "the cat: {text}"},
    ],
)
def test_exported_equals_live(
    kind: str, settings: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = save_tuned(str(save_with(kind, tmp_path / "base")), tmp_path / "run", **settings)
    parity = export_peft(str(tmp_path / "run"), folder=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["smallest"] == parity.smallest > 0.99999

    lead = place_prompts(live).texts[Side.DOCUMENT]  # a blank that the prompt ends with
    assert ("Put ' ' before every text" in caplog.text) == bool(lead)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    network = PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "base"), tmp_path / "out").eval()
    for text, vector in zip(ALL, live.encode(ALL), strict=True):
        batch = tokenizer([lead + text], truncation=True, return_tensors="pt")
        with torch.inference_mode():
            states = network(**batch).last_hidden_state[0]
        pooled = states.mean(0) if settings.get("pooling") == "mean" else states[-1]
        np.testing.assert_allclose((pooled / pooled.norm()).numpy(), vector, atol=1e-5)

    again = Embedder.load(str(tmp_path / "out"), precision="fp32")
    np.testing.assert_allclose(again.encode(ALL), live.encode(ALL), atol=1e-6)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(save_with("bytes", tmp_path / "base"))
    with pytest.raises(ConfigError, match="a model without an adapter"):
        export_peft(base, folder=tmp_path / "out")
    save_tuned(base, tmp_path / "run", pooling="concat")
    with pytest.raises(ConfigError, match="pooling concat"):
        export_peft(str(tmp_path / "run"), folder=tmp_path / "out")
    assert run_command(["export", base, str(tmp_path / "out"), "--to", "peft", "--dtype", "bf16"]) == 2
    assert "stored as fp32" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
