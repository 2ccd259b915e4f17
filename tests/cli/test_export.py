"""``clapkit export onnx``: what it prints, what it refuses, and that its README is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clapkit.model import AudioTextModel

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def graphs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as ONNX."""
    from clapkit.models.onnx_export import export_onnx
    from clapkit.models.opening import open_checkpoint

    folder = tmp_path_factory.mktemp("export") / "onnx"
    export_onnx(open_checkpoint(tiny_run), folder, name="tiny")
    return folder


def test_the_page_is_true(graphs: Path, tiny_model: AudioTextModel, tmp_path: Path) -> None:
    """Its code runs without clapkit and torch, and gives the model's vectors for short, long and odd sounds."""
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal((1, n)).astype(np.float32) / 9 for n in (700, 16_000, 16_001, 50_000)]
    texts = ["a low hum", "high", "the sound of rain on a roof"]
    np.savez(tmp_path / "clips.npz", *clips)
    code = "\n".join(BLOCK.findall((graphs / "README.md").read_text()))
    code += f"""
import sys
clips = np.load({str(tmp_path / "clips.npz")!r})
vectors = np.stack([embed_audio(clips[name]) for name in clips.files])
scores = zeroshot(clips[clips.files[0]], {texts!r})
np.savez({str(tmp_path / "found.npz")!r}, audio=vectors, text=embed_text({texts!r}), scores=scores)
print([name for name in ("clapkit", "torch", "transformers") if name in sys.modules])
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=graphs, capture_output=True, text=True, check=True, env=environment
    )
    assert ran.stdout.strip() == "[]"
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["audio"], tiny_model.embed_audio(clips), atol=1e-4)
    np.testing.assert_allclose(found["text"], tiny_model.embed_text(texts), atol=1e-4)
    logits = (
        float(tiny_model.clap.scale().detach()) * tiny_model.embed_text(texts) @ tiny_model.embed_audio(clips[0])[0]
    )
    np.testing.assert_allclose(found["scores"], np.exp(logits) / np.exp(logits).sum(), atol=1e-3)


def test_an_existing_folder_is_replaced_only_when_told(cli: Callable, graphs: Path, tiny_run: Path) -> None:
    before = (graphs / "audio.onnx").read_bytes()
    result = cli("export", "onnx", "--checkpoint", tiny_run, "--output", graphs)
    assert result.code == 2
    assert "exists already" in result.err
    assert "--overwrite" in result.err
    assert (graphs / "audio.onnx").read_bytes() == before


def test_a_folder_of_another_kind_is_never_replaced(cli: Callable, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    result = cli("export", "onnx", "--checkpoint", tiny_run, "--output", tmp_path / "mine", "--overwrite")
    assert result.code == 2
    assert "holds no onnx.json" in result.err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_it_prints_how_near_each_tower_came(
    cli: Callable, graphs: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs are those written before: writing them again takes seconds."""
    for tower in ("audio", "text"):
        graph = (graphs / f"{tower}.onnx").read_bytes()
        write = lambda *arguments, graph=graph: arguments[-1].write_bytes(graph)  # noqa: E731
        monkeypatch.setattr(f"clapkit.models.onnx_export._write_{tower}", write)
    words = ("export", "onnx", "--checkpoint", tiny_run, "--output", tmp_path / "new")
    result = cli(*words)
    assert result.code == 0
    assert result.out.count("largest difference from the model") == 2
    assert "audio.onnx: waveform, n_valid_samples → embedding, probabilities" in result.out
    assert "text.onnx: input_ids, attention_mask → embedding" in result.out
    document = json.loads(cli(*words, "--overwrite", "--json").out)
    assert [tower["file"] for tower in document["towers"]] == ["audio.onnx", "text.onnx"]
    assert all(0 <= tower["largest_difference"] <= document["tolerance"] == 1e-4 for tower in document["towers"])


def test_the_folder_must_be_given_and_the_kind_be_known(cli: Callable, tmp_path: Path) -> None:
    assert cli("export", "onnx").code != 0
    assert cli("export", "tflite", "--output", tmp_path / "x").code != 0
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_one_line(
    cli: Callable, tiny_run: Path, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "clapkit.models.onnx_export", raising=False)
    result = cli("export", "onnx", "--checkpoint", tiny_run, "--output", tmp_path / "x")
    assert result.code == 2
    assert f"the package {package}, which is not installed; run: pip install 'clapkit[onnx]'" in result.err
    assert result.err.count("\n") == 1
