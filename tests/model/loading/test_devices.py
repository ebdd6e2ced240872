"""Devices and number formats that can be had here; others are refused by a message, not by torch."""

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading import devices
from embedsmith.model.loading.devices import choose_device, choose_dtype, choose_precision
from embedsmith.settings.choices import Precision
from embedsmith.support.errors import ConfigError

CPU = torch.device("cpu")


def test_what_is_here() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_dtype(Precision.FP32, CPU) == torch.float32
    assert choose_dtype(Precision.BF16, CPU) == torch.bfloat16
    assert choose_precision("bf16") is Precision.BF16
    with pytest.raises(ConfigError, match="it must be one of auto, bf16, fp32"):
        choose_precision("half")


@pytest.mark.parametrize(("has_instructions", "are_used"), [(True, True), (True, False), (False, True)])
def test_bfloat16_where_the_processor_multiplies_it_and_torch_does(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool, are_used: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_instructions})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: are_used)
    expected = torch.bfloat16 if has_instructions and are_used else torch.float32
    assert choose_dtype(Precision.AUTO, CPU) == expected


@pytest.mark.parametrize(
    "device", ["cuda:97", "meta", "gpu", "CUDA", "cuda ", "", "cuda:x", "xla", "hpu", "opengl", "privateuseone", "auto"]
)
def test_what_is_not(device: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"device is '{device}', which cannot be had here: .*[\s\S]*machine has: cpu"
    ):
        choose_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_where_there_is_none(model_folders: dict[str, str], device: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{device}', which cannot be had here"):
        Embedder.load(model_folders["llama"], device=device)


@pytest.mark.parametrize("is_native", [True, False])
def test_a_gpu_that_only_emulates_bfloat16_gets_float32(is_native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or is_native
    )
    expected = torch.bfloat16 if is_native else torch.float32
    assert choose_dtype(Precision.AUTO, torch.device("cuda", 0)) is expected


@pytest.mark.parametrize(("built_for", "has_driver"), [("13.0", True), ("13.0", False), (None, True)])
def test_a_gpu_that_torch_cannot_use_is_said_once(
    built_for: str | None, has_driver: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(devices, "which", lambda name: "/usr/bin/nvidia-smi" if has_driver else None)
    devices._say_unused_gpu.cache_clear()
    assert choose_device() == choose_device() == CPU
    assert len(caplog.messages) == (1 if built_for and has_driver else 0)
    assert all("is the driver new enough for CUDA 13.0?" in message for message in caplog.messages)
    devices._say_unused_gpu.cache_clear()
    choose_device("cpu")
    assert len(caplog.messages) <= 1
