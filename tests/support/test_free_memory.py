from pathlib import Path

import pytest
import torch

from embedsmith.support import free_memory
from embedsmith.support.free_memory import free_bytes


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_CGROUP", tmp_path)
    without = free_bytes(torch.device("cpu"))
    assert without > 1_000_000
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 150000\n")
    assert free_bytes(torch.device("cpu")) == 450_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) > 1_000_000


def test_what_torch_keeps_of_a_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 600)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 150)
    assert free_bytes(torch.device("cuda")) == 1450
