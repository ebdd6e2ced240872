"""Building the C kernels: once into the cache, and clear words where that is not possible."""

import ctypes
import logging
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused.build import KernelBuildError, find_compiler, load_library
from embedsmith.model.layers.fused.c_kernels import CKernels
from embedsmith.model.layers.fused.choice import choose_kernels
from tests.model.layers.fused.cases import load, needs_compiler, run
from tests.tiny import TEXTS


@pytest.fixture
def fresh(cache: Path) -> Iterator[Path]:
    """An empty cache, and no library from before or for later."""
    load_library.cache_clear()
    yield cache
    load_library.cache_clear()


needs_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the lower processor is an x86")


def compiler_defines(name: str, *, march: str) -> bool:
    """Whether the compiler's own macro `name` is there for that processor."""
    compiler = find_compiler()
    assert compiler is not None
    command = [*compiler.split(), f"-march={march}", "-dM", "-E", "-x", "c", "/dev/null"]
    macros = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"#define {name} " in macros


def use_compiler(monkeypatch: pytest.MonkeyPatch, command: str | None, *, path: str | None = None) -> None:
    if command is None:
        monkeypatch.delenv("CC", raising=False)
    else:
        monkeypatch.setenv("CC", command)
    if path is not None:
        monkeypatch.setenv("PATH", path)


def fake_compiler(folder: Path, *, body: str) -> str:
    """A compiler that writes `body` to the file after -o."""
    script = folder / "fake-cc"
    script.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n{body}\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)


@needs_compiler
def test_built_once_and_then_loaded(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = load_library()
    assert isinstance(library, ctypes.CDLL)
    assert load_library() is library
    (path,) = (fresh / "kernels").iterdir()
    assert path.name.startswith("kernels-")
    assert path.suffix == ".so"
    built = path.stat()
    load_library.cache_clear()
    use_compiler(monkeypatch, "false")  # a second build would fail
    assert load_library() is not library
    assert path.stat().st_mtime_ns == built.st_mtime_ns
    assert list((fresh / "kernels").iterdir()) == [path]
    for kind in ("bf16", "f32"):
        assert hasattr(library, f"attention_backward_{kind}")
        assert all(
            library.find_loop(f"{name}_{kind}".encode()) >= 0 for name in ("add_norm", "norm_backward", "project")
        )
    assert library.find_loop(b"no_such_loop") == -1


@needs_compiler
@needs_x86
def test_built_for_a_lower_processor(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside this processor's, under a name of its own, and without the instructions that the lower one has not."""
    monkeypatch.delenv("EMBEDSMITH_MARCH", raising=False)
    own = load_library()
    load_library.cache_clear()
    monkeypatch.setenv("EMBEDSMITH_MARCH", "haswell")
    lower = load_library()
    assert len(list((fresh / "kernels").iterdir())) == 2
    assert own.has_products() == compiler_defines("__AVX512BF16__", march="native")
    assert lower.has_products() == 0
    assert CKernels(lower).products is None


@needs_compiler
def test_a_processor_that_the_compiler_does_not_know(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDSMITH_MARCH", "abacus")
    with pytest.raises(KernelBuildError, match="abacus"):
        load_library()


def test_no_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(monkeypatch, None, path="")
    with pytest.raises(KernelBuildError, match="no C compiler; install gcc or clang"):
        load_library()
    assert not fresh.exists()


def test_a_compiler_that_is_not_there(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(monkeypatch, "/nowhere/cc -m64")
    with pytest.raises(KernelBuildError, match=r"/nowhere/cc -m64: .*No such file"):
        load_library()


def test_a_compiler_that_fails(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(monkeypatch, fake_compiler(tmp_path, body="exit 1"))
    with pytest.raises(KernelBuildError, match="fake-cc: failed without a message"):
        load_library()
    use_compiler(monkeypatch, fake_compiler(tmp_path, body="echo 'error: unknown -march' >&2; echo more >&2; exit 1"))
    with pytest.raises(KernelBuildError, match=r"fake-cc: error: unknown -march$"):
        load_library()
    assert not fresh.exists()


def test_a_compiler_that_writes_nonsense(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(monkeypatch, fake_compiler(tmp_path, body='echo nonsense > "$2"'))
    with pytest.raises(KernelBuildError, match=r"kernels-\w+\.so does not load"):
        load_library()


def test_a_cache_that_cannot_be_written(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.write_text("a file where the folder should be", encoding="utf-8")
    use_compiler(monkeypatch, fake_compiler(tmp_path, body='echo nonsense > "$2"'))
    with pytest.raises(KernelBuildError, match="cannot be written"):
        load_library()


def test_an_error_is_not_remembered(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(monkeypatch, "/nowhere/cc")
    for _ in range(2):
        with pytest.raises(KernelBuildError, match="nowhere"):
            load_library()
    use_compiler(monkeypatch, None, path="")
    with pytest.raises(KernelBuildError, match="no C compiler"):
        load_library()


def test_torch_kernels_take_over_and_say_why(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_compiler(monkeypatch, None, path="")
    with caplog.at_level(logging.WARNING):
        kernels = choose_kernels(torch.device("cpu"), widths=(64, 64, 16))
    assert kernels.name == "torch"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "No C kernels (no C compiler; install gcc or clang)" in record.getMessage()
    assert "slower" in record.getMessage()


@needs_compiler
def test_without_a_compiler_embeddings_are_the_same(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(load(folders["qwen3"], kernels="C"), TEXTS).embeddings
    adapted = load(folders["qwen3"], kernels="C")
    adapted.save(tmp_path / "adapter")
    monkeypatch.setenv("EMBEDSMITH_CACHE", str(tmp_path / "cache"))
    use_compiler(monkeypatch, None, path="")
    load_library.cache_clear()
    try:
        embedder = Embedder.load(str(tmp_path / "adapter"), precision="fp32")
    finally:
        load_library.cache_clear()
    assert embedder.path == "fused blocks, torch kernels"
    torch.testing.assert_close(torch.from_numpy(embedder.encode(TEXTS)), expected, rtol=0, atol=1e-5)
