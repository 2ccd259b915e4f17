"""Checkpoint folders: what is saved comes back, damage is named in one line, and nothing is lost half-way."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import clapkit
from clapkit.errors import CheckpointError, StorageError
from clapkit.model import AudioTextModel
from clapkit.models import checkpoint as checkpoint_module
from clapkit.models.checkpoint import load_checkpoint, save_checkpoint

TEXTS = ["the sound of low", "something never trained on"]


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage, alone in its parent."""
    return shutil.copytree(tiny_run, tmp_path / "saved" / "checkpoint")


def _change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def _change_record(folder: Path, **values: object) -> None:
    record = yaml.safe_load((folder / "checkpoint.yaml").read_text())
    (folder / "checkpoint.yaml").write_text(yaml.safe_dump(record | values))


def _refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_model_comes_back_with_identical_vectors(
    tiny_model: AudioTextModel, sounds: Path, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path / "copy")
    copy = clapkit.load(tmp_path / "copy", device="cpu")
    files = sorted((sounds / "low").iterdir())
    assert np.array_equal(copy.embed_audio(files), tiny_model.embed_audio(files))
    assert np.array_equal(copy.embed_text(TEXTS), tiny_model.embed_text(TEXTS))
    assert copy.classify(files) == tiny_model.classify(files)
    assert copy.fingerprint == tiny_model.fingerprint


def test_everything_known_about_a_model_comes_back(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    texts = {'wörter, und "Zitate"': np.arange(32, dtype=np.float32), "二": np.ones(32, dtype=np.float32)}
    before = replace(tiny_model.checkpoint, texts=texts)
    save_checkpoint(before, tmp_path / "copy")
    after = load_checkpoint(tmp_path / "copy")
    assert list(after.texts) == list(texts)
    assert all(np.array_equal(after.texts[text], texts[text]) for text in texts)
    for part in ("labels", "text_sha256", "training", "metrics", "sources"):
        assert getattr(after, part) == getattr(before, part)
    assert after.clap.config == before.clap.config


def test_labels_that_look_like_yaml_stay_words(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    labels = ["no", "1990", "café: bar"]
    save_checkpoint(replace(tiny_model.checkpoint, labels=labels), tmp_path / "copy")
    assert load_checkpoint(tmp_path / "copy").labels == labels


def test_a_checkpoint_holds_nothing_that_can_run_code(tiny_run: Path) -> None:
    files = [file for file in tiny_run.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".yaml", ".json", ".txt", ".csv", ".md", ".png"}
    assert not [file for file in files if file.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04")]  # zip, pickle


def test_missing_keys_are_counted_and_one_is_named(folder: Path) -> None:
    _change_weights(folder, lambda weights: weights.pop("head.bias"))
    assert "1 missing key(s) such as head.bias" in _refusal(folder)


def test_unexpected_keys_are_counted_and_one_is_named(folder: Path) -> None:
    _change_weights(folder, lambda weights: weights.update(stray=torch.zeros(1)))
    assert "1 unexpected key(s) such as stray" in _refusal(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path) -> None:
    _change_weights(folder, lambda weights: weights.update({"head.bias": torch.zeros(7)}))
    message = _refusal(folder)
    assert "head.bias has shape (7,) instead of (3,)" in message


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_version_is_refused(folder: Path, version: object) -> None:
    _change_record(folder, format_version=version)
    assert f"format version {version}, this clapkit reads version 1" in _refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint.yaml", "config.yaml", "model.safetensors", "metrics.json", "sources.txt",
        "text", "text/config.json", "text/tokenizer.json",
    ],
)  # fmt: skip
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    gone = folder / name
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    assert name.split("/")[0] in _refusal(folder)


@pytest.mark.parametrize(
    "name", ["checkpoint.yaml", "config.yaml", "model.safetensors", "metrics.json", "text/config.json"]
)
def test_a_truncated_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2 - 3])
    assert str(folder) in _refusal(folder)


# Settings that a cut file lacks would be filled with the defaults, and sounds prepared in another way than in training.
@pytest.mark.parametrize(
    ("line", "instead"), [("  sample_rate: 16000\n", ""), ("  hop_length: 320\n", "  hop_length: 160\n")]
)
def test_preprocessing_that_is_not_the_recorded_one_is_refused(folder: Path, line: str, instead: str) -> None:
    config = (folder / "config.yaml").read_text()
    assert line in config
    (folder / "config.yaml").write_text(config.replace(line, instead))
    assert "config.yaml" in _refusal(folder)


def test_truncated_vectors_of_known_texts_are_named(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    save_checkpoint(replace(tiny_model.checkpoint, texts={"low": np.ones(32, dtype=np.float32)}), tmp_path / "copy")
    file = tmp_path / "copy" / "texts.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "texts.safetensors: damaged" in _refusal(tmp_path / "copy")


def test_a_record_without_labels_is_refused(folder: Path) -> None:
    record = yaml.safe_load((folder / "checkpoint.yaml").read_text())
    del record["labels"]
    (folder / "checkpoint.yaml").write_text(yaml.safe_dump(record))
    assert "lacks labels" in _refusal(folder)


def test_other_folders_and_files_are_not_checkpoints(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint.yaml" in _refusal(tmp_path / "empty")
    assert "no such checkpoint folder" in _refusal(tmp_path / "nowhere")
    assert "no such checkpoint folder" in _refusal(folder / "checkpoint.yaml")


def test_load_names_what_is_neither_a_folder_nor_shipped() -> None:
    with pytest.raises(CheckpointError, match="checkpoint 'nonesuch': no such file or folder"):
        clapkit.load("nonesuch")


def test_an_existing_folder_is_kept_unless_told_otherwise(tiny_model: AudioTextModel, folder: Path) -> None:
    (folder / "mine.txt").write_text("keep me")
    with pytest.raises(StorageError, match="exists already"):
        tiny_model.save_pretrained(folder)
    assert (folder / "mine.txt").exists()
    tiny_model.save_pretrained(folder, overwrite=True)
    assert not (folder / "mine.txt").exists()
    assert load_checkpoint(folder).labels == tiny_model.labels
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_is_no_checkpoint_is_never_replaced(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.wav").touch()
    with pytest.raises(StorageError):
        tiny_model.save_pretrained(tmp_path / "music", overwrite=True)
    assert (tmp_path / "music" / "song.wav").exists()


def test_an_empty_folder_can_be_overwritten(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    tiny_model.save_pretrained(tmp_path / "new", overwrite=True)
    assert load_checkpoint(tmp_path / "new").labels == tiny_model.labels


def test_a_file_in_the_way_leaves_no_leftovers(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("a file")
    with suppress(StorageError):  # refused or replaced
        tiny_model.save_pretrained(tmp_path / "new", overwrite=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    tiny_model: AudioTextModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "save_file", _full_disk)
    with pytest.raises(StorageError, match="no space left") as error:
        tiny_model.save_pretrained(folder, overwrite=True)
    assert "\n" not in str(error.value)
    assert load_checkpoint(folder).labels == tiny_model.labels
    assert list(folder.parent.iterdir()) == [folder]


def test_a_full_disk_leaves_no_half_checkpoint(
    tiny_model: AudioTextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "save_config", _full_disk)  # the weights are there by then
    with pytest.raises(StorageError, match="no space left"):
        tiny_model.save_pretrained(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_safetensors_own_error_for_a_full_disk_is_understood(
    tiny_model: AudioTextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full_disk(*_: object, **__: object) -> None:
        raise SafetensorError('Error while serializing: IoError(Os { code: 28, message: "No space left on device" })')

    monkeypatch.setattr(checkpoint_module, "save_file", full_disk)
    with pytest.raises(StorageError, match="no space left"):
        tiny_model.save_pretrained(tmp_path / "new")


# Between the two renames the old checkpoint has another name.
@pytest.mark.parametrize("n_renames_done", [0, 1])
def test_an_interrupt_while_folders_change_places_loses_nothing(
    n_renames_done: int, tiny_model: AudioTextModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, done = Path.rename, []

    def interrupted_rename(self: Path, target: Path) -> Path:
        if len(done) == n_renames_done:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted_rename)
    with pytest.raises(KeyboardInterrupt):
        tiny_model.save_pretrained(folder, overwrite=True)
    assert load_checkpoint(folder).labels == tiny_model.labels


def test_metrics_and_record_are_plain_text(tiny_run: Path) -> None:
    assert set(json.loads((tiny_run / "metrics.json").read_text())) == {"head", "zeroshot", "retrieval"}
    record = yaml.safe_load((tiny_run / "checkpoint.yaml").read_text())
    assert record["labels"] == ["high", "low", "middle"]
    assert set(record["fingerprint"]) == {"weights", "preprocessing"}
