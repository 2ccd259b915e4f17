"""``clapkit caption`` and ``clapkit train --task caption`` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from clapkit.model import AudioTextModel, load

SMALL = (
    "caption.prefix_length=2", "caption.clip_length=2", "caption.n_layers=1", "caption.n_heads=2",
    "caption.hidden_size=16", "caption.decoder_layers=1", "caption.vocab_size=300", "caption.most_tokens=12",
    "train.batch_size=8",
)  # fmt: skip
SETTINGS = [word for setting in SMALL for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(sounds: Path, tmp_path: Path) -> Path:
    files = sorted(sounds.rglob("*.wav"))
    pd.DataFrame({"path": files, "caption": [f"a {file.parent.name} tone" for file in files]}).to_csv(
        tmp_path / "captions.csv", index=False
    )
    return tmp_path / "captions.csv"


@pytest.fixture
def trained(cli: Callable, tiny_run: Path, table: Path) -> Path:
    result = cli(
        "train", "--task", "caption", "--dataset", "csv", "--root", table, "--checkpoint", tiny_run, "--decoder",
        "gpt2-small", *SETTINGS, "--epochs", 1, "--device", "cpu",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "captions: loss per token" in result.out
    assert "try: clapkit caption FILE --checkpoint runs/csv-caption" in result.out
    assert "decoder gpt2-small, learns too; audio tower frozen" in result.err
    return Path("runs/csv-caption")


def test_a_trained_caption_model_writes(cli: Callable, trained: Path, sounds: Path) -> None:
    files = [sounds / "low" / "0.wav", sounds / "high" / "0.wav"]
    written = load(trained, device="cpu").caption(files, n_beams=2)
    result = cli("caption", *files, "--checkpoint", trained, "--beams", 2)
    assert result.code == 0
    assert result.out.splitlines() == [str(files[0]), f"  {written[0]}", str(files[1]), f"  {written[1]}"]
    document = json.loads(cli("caption", *files, "--checkpoint", trained, "--beams", 2, "--json").out)
    assert document == {
        "results": [
            {"file": str(file), "caption": text, "written": True} for file, text in zip(files, written, strict=True)
        ]
    }
    info = cli("info", trained).out
    assert "in the caption model" in info
    assert "captions_decoder gpt2-small" in info
    compared = cli("compare", trained)
    assert "loss per token of captions" in compared.out


def test_descriptions_are_chosen_from(
    cli: Callable, tiny_run: Path, tiny_model: AudioTextModel, sounds: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a hum, far away\nrain\n# not this\na shrill whistle\n", encoding="utf-8")
    file = sounds / "low" / "0.wav"
    result = cli("caption", file, "--checkpoint", tiny_run, "--descriptions", "@texts.txt", "--json")
    (found,) = json.loads(result.out)["results"]
    (best,) = tiny_model.describe(file, ["a hum, far away", "rain", "a shrill whistle"])
    assert (found["caption"], found["written"]) == (best.label, False)
    assert found["similarity"] == pytest.approx(best.similarity, abs=1e-5)
    shown = cli("caption", file, "--checkpoint", tiny_run, "--descriptions", "@texts.txt").out.splitlines()
    assert shown == [str(file), f"  {best.label}  similarity {best.similarity:+.2f}"]


def test_a_checkpoint_without_caption_model_says_so(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    file = sounds / "low" / "0.wav"
    result = cli("caption", file, "--checkpoint", "base")  # its text tower is not asked for
    assert result.code == 0, result.err
    assert "base: has no caption model, so the nearest of the" in result.err
    assert "similarity" in result.out


def test_a_checkpoint_that_knows_no_texts_asks_for_descriptions(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    result = cli("caption", sounds / "low" / "0.wav", "--checkpoint", tiny_run)
    assert result.code == 2
    assert "no caption model and knows no texts; give descriptions (--descriptions @FILE)" in result.err


def test_bad_files_are_listed_at_the_end(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "good.wav", [0.1, -0.1] * 4000, 16_000)
    words = ("caption", "good.wav", "empty.wav", "--checkpoint", tiny_run, "--descriptions", "a,b")
    result = cli(*words)
    assert result.code == 0
    assert result.out.splitlines()[0] == "good.wav"
    assert "1 of 2 files were skipped:" in result.err
    assert cli(*words, "--strict").code == 2


def test_a_missing_tokenizer_is_found_before_any_sound_is_embedded(
    cli: Callable, trained: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (trained / "caption" / "decoder").glob("tokenizer*"):
        file.unlink()
    monkeypatch.setattr("clapkit.search.embed.encode_files", lambda *_, **__: pytest.fail("sounds were embedded"))
    result = cli("caption", sounds / "low", "--checkpoint", trained)
    assert result.code == 2
    assert "holds no tokenizer" in result.err


MISTAKES = {
    "no file": (("caption",), "no file given"),
    "no beam": (("caption", "a.wav", "--beams", "0"), "--beams 0: expected at least 1"),
    "no descriptions": (("caption", "a.wav", "--descriptions", "@no.txt"), "--descriptions @no.txt: no such file"),
    "no model": (("caption", "a.wav"), "add --checkpoint base"),
    "no checkpoint": (("caption", "a.wav", "--checkpoint", "nowhere"), "nowhere"),
    "folds": (("train", "--dataset", "csv", "--task", "caption", "--folds", "all"), "leave out --folds"),
    "no task": (("train", "--dataset", "csv", "--decoder", "gpt2"), "add --task caption"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(cli: Callable, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    words, reason = MISTAKES[mistake]
    result = cli(*words)
    assert result.code == 2
    complaints = [line for line in result.err.splitlines() if line.startswith("clapkit: ")]
    assert len(complaints) == 1
    assert reason in complaints[0]
    assert result.out == ""
