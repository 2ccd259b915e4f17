"""Training a caption model: only it learns, it goes on bit for bit after a kill, and a report shows what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from clapkit.config import Config, load_config
from clapkit.data.datasets import load_manifest
from clapkit.errors import CheckpointError, ClapkitError, DatasetError, StorageError, TextModelError, TrainingError
from clapkit.model import AudioTextModel, load
from clapkit.models.caption_decoder import new_captioner
from clapkit.models.checkpoint import load_checkpoint
from clapkit.models.weights import weights_fingerprint
from clapkit.training import captions, loop
from clapkit.training.audio_vectors import audio_vectors
from clapkit.training.caption_fit import CaptionPairs, loss_per_token
from clapkit.training.captions import train_captions
from clapkit.training.plan import plan_run
from clapkit.training.run import Run
from clapkit.training.state import STATE_FILE
from clapkit.training.unfinished import state_folder

CPU = torch.device("cpu")
WORDS = {"low": ["a deep hum", "something hums"], "middle": ["a clear tone"], "high": ["a shrill whistle"]}
SMALL = [
    "caption.decoder=gpt2-small", "caption.prefix_length=3", "caption.clip_length=2", "caption.n_layers=1",
    "caption.n_heads=2", "caption.hidden_size=32", "caption.decoder_layers=1", "caption.vocab_size=300",
    "caption.most_tokens=24", "train.epochs=3", "train.batch_size=6", "train.learning_rate=0.01",
    "train.schedule=cosine", "train.precision=float32",
]  # fmt: skip


class Killed(Exception):
    """What ends a training in these tests."""


@pytest.fixture(scope="session")
def captioned(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of the tones, some of them with two captions, and of two without any."""
    rows = [
        {"path": str(file), "label": "tone", "caption": caption}
        for file in sorted(sounds.rglob("*.wav"))
        for caption in WORDS[file.parent.name]
    ]
    rows += [{"path": str(sounds / "low" / f"{number}.wav"), "label": "tone", "caption": ""} for number in (0, 1)]
    file = tmp_path_factory.mktemp("captioned") / "captions.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


@pytest.fixture
def make_run(tiny_run: Path, captioned: Path, tmp_path: Path) -> Callable[..., Run]:
    def make(*overrides: str, output: str = "run") -> Run:
        config = load_config([], [*SMALL, f"train.start_from={tiny_run}", *overrides])
        return plan_run(config, load_manifest("csv", captioned), tmp_path / output, command="clapkit train")

    return make


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A GPT-2 that somebody else has trained."""
    torch.manual_seed(7)
    config = load_config([], SMALL).caption
    captioner = new_captioner(config, 8, [text for texts in WORDS.values() for text in texts])
    captioner.decoder.save_pretrained(tmp_path / "decoder")
    captioner.tokenizer.save_pretrained(tmp_path / "decoder")
    return tmp_path / "decoder"


def weights(model: AudioTextModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.checkpoint.captioner.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def kill_after_save(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    save, n_saved = loop.save_state, 0

    def save_and_die(*arguments: Any) -> None:
        nonlocal n_saved
        save(*arguments)
        n_saved += 1
        if n_saved == number:
            raise Killed

    monkeypatch.setattr(loop, "save_state", save_and_die)


def test_a_run_leaves_a_checkpoint_that_writes_captions(make_run: Callable[..., Run], tiny_run: Path) -> None:
    lines: list[str] = []
    run = make_run("train.patience=2", "train.epochs=12")
    trained = train_captions(run, device=CPU, report=lines.append)
    assert "2 clips without a caption are left out" in lines
    before, after = load(tiny_run, device="cpu"), load(run.output, device="cpu")
    assert before.fingerprint == after.fingerprint  # the towers are as they were: an index stays valid
    assert same(weights(trained), weights(after))
    history = pd.read_csv(run.output / "history.csv")
    assert history["val_loss"].notna().all()
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    figures = json.loads((run.output / "metrics.json").read_text())["caption"]
    assert figures["n_clips"] == run.split.test["caption"].notna().sum()
    assert figures["loss_per_token"] > 0
    heard = set(before.checkpoint.sources) & set(run.split.test["source"])
    assert figures["leaky"] == bool(heard)
    report = (run.output / "report.md").read_text()
    written = pd.read_csv(run.output / "predictions.csv")
    assert written["source"].is_unique
    for row in written.itertuples():
        assert f"- {Path(row.path).name}: **{row.written}** (given: {row.caption})" in report
    assert "loss per token" in report
    assert (run.output / "learning_curves.png").is_file()
    assert after.checkpoint.training["captions_decoder"] == "gpt2-small"
    assert not state_folder(run.output).exists()


def test_each_kind_of_sound_learns_its_captions(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = list(WORDS)

    def clear_vectors(model: AudioTextModel, rows: pd.DataFrame) -> Tensor:
        """A base of two epochs hears little difference; these are at right angles."""
        return torch.eye(model.embed_dim)[[kinds.index(Path(path).parent.name) for path in rows["path"]]]

    monkeypatch.setattr(captions, "audio_vectors", clear_vectors)
    model = train_captions(make_run("train.epochs=30"), device=CPU)
    written = model.write_captions(list(torch.eye(model.embed_dim)[:3].numpy()))
    for kind, text in zip(kinds, written, strict=True):
        assert text in {each.capitalize() for each in WORDS[kind]}


OVERRIDES = {
    "new decoder": ["train.patience=3", "train.ema=0.5", "train.accumulate=2"],
    "given decoder": ["train.patience=3"],
}


@pytest.mark.parametrize("kind", OVERRIDES)
def test_a_run_killed_after_any_save_ends_with_the_same_bits(
    make_run: Callable[..., Run], decoder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    overrides = [*OVERRIDES[kind], "train.save_every_s=1e-9"]
    if kind == "given decoder":
        overrides.append(f"caption.decoder={decoder}")
    whole = weights(train_captions(make_run(*overrides, output="whole"), device=CPU))
    for number in (1, 4, 6):
        run = make_run(*overrides, output=f"killed{number}")
        with monkeypatch.context() as patch:
            kill_after_save(patch, number)
            with pytest.raises(Killed):
                train_captions(run, device=CPU)
        with pytest.raises(StorageError, match="unfinished run"):
            train_captions(run, device=CPU)
        lines: list[str] = []
        torch.manual_seed(number)  # a new process has drawn other numbers
        resumed = train_captions(run, device=CPU, resume=True, report=lines.append)
        assert any(line.startswith("going on after step") for line in lines)
        assert same(weights(resumed), whole), f"killed after save {number}"
        histories = [pd.read_csv(run.output.parent / name / "history.csv") for name in ("whole", run.output.name)]
        pd.testing.assert_frame_equal(*(each.drop(columns="seconds") for each in histories), check_exact=True)


def test_a_state_of_other_settings_is_not_taken_up(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_after_save(patch, 1)
        with pytest.raises(Killed):
            train_captions(make_run(), device=CPU)
    with pytest.raises(CheckpointError, match="other settings or clips"):
        train_captions(make_run("train.learning_rate=0.02"), device=CPU, resume=True)
    train_captions(make_run("train.learning_rate=0.02"), device=CPU, overwrite=True)


def test_a_given_decoder_stays_as_it_is_and_out_of_the_state(
    make_run: Callable[..., Run], decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GPT2LMHeadModel

    run = make_run(f"caption.decoder={decoder}")
    with monkeypatch.context() as patch:
        kill_after_save(patch, 2)
        with pytest.raises(Killed):
            train_captions(run, device=CPU)
    with safe_open(state_folder(run.output) / STATE_FILE, framework="pt") as state:
        assert not any("wte" in name or "decoder" in name for name in state.keys())  # noqa: SIM118 (not a dict)
    model = train_captions(run, device=CPU, resume=True)
    given = GPT2LMHeadModel.from_pretrained(decoder)
    assert same(dict(given.state_dict()), dict(model.checkpoint.captioner.decoder.state_dict()))


def test_a_captioner_is_trained_further_unless_a_decoder_is_named(
    make_run: Callable[..., Run], decoder: Path, tmp_path: Path
) -> None:
    first = train_captions(make_run(f"caption.decoder={decoder}"), device=CPU)
    again = make_run(f"train.start_from={tmp_path / 'run'}", "caption.decoder=null", output="again")
    lines: list[str] = []
    second = train_captions(again, device=CPU, report=lines.append)
    before, after = weights(first), weights(second)
    assert before.keys() == after.keys()
    assert not same(before, after)
    assert torch.equal(before["decoder.transformer.wte.weight"], after["decoder.transformer.wte.weight"])
    losses = [pd.read_csv(tmp_path / name / "history.csv")["loss"].iloc[0] for name in ("run", "again")]
    assert losses[1] < losses[0]


def test_a_sound_is_embedded_once(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path
) -> None:
    monkeypatch.setenv("CLAPKIT_CACHE", str(tmp_path / "cache"))
    encode, n_encoded = AudioTextModel.encode, 0

    def count(model: AudioTextModel, waveforms: Any) -> Any:
        nonlocal n_encoded
        for output in encode(model, waveforms):
            n_encoded += 1
            yield output

    monkeypatch.setattr(AudioTextModel, "encode", count)
    train_captions(make_run(output="one"), device=CPU)
    assert n_encoded == 18  # files, of which a third has two captions
    train_captions(make_run("train.learning_rate=0.02", output="two"), device=CPU)
    assert n_encoded == 18
    model = load(tiny_run, device="cpu")
    rows = make_run().split.train
    vectors = audio_vectors(model, rows)
    monkeypatch.undo()
    torch.testing.assert_close(vectors, torch.from_numpy(model.embed_audio(rows["path"].tolist())), atol=1e-6, rtol=0)


def test_the_loss_per_token_weighs_batches_by_their_tokens() -> None:
    torch.manual_seed(0)
    texts = [text for group in WORDS.values() for text in group]
    captioner = new_captioner(load_config([], SMALL).caption, 8, texts)
    ids, mask = captioner.tokenize(texts)
    pairs = CaptionPairs(torch.nn.functional.normalize(torch.randn(4, 8), dim=1), ids, mask, torch.ones(4))
    whole = float(captioner.loss(pairs.vectors, texts).detach())
    for batch_size in (1, 3, 4):
        assert loss_per_token(captioner, pairs, CPU, batch_size) == pytest.approx(whole, abs=1e-5)


def test_clips_without_captions_teach_nothing(tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    config: Config = load_config([], [*SMALL, f"train.start_from={tiny_run}"])
    run = plan_run(config, load_manifest("folder", sounds), tmp_path / "run")
    with pytest.raises(DatasetError, match="no clip of the train part has a caption; give a CSV"):
        train_captions(run, device=CPU)
    assert not run.output.exists()


def test_watched_clips_need_captions(make_run: Callable[..., Run]) -> None:
    run = make_run("train.patience=2")
    watched = run.split.validation.assign(caption=None)
    run = replace(run, split=replace(run.split, validation=watched))
    with pytest.raises(DatasetError, match="no clip of the validation part has a caption"):
        train_captions(run, device=CPU)


def test_a_run_without_test_has_no_figures(make_run: Callable[..., Run], tiny_run: Path) -> None:
    run = make_run("train.epochs=1")
    run = replace(run, split=replace(run.split, test=run.split.test[:0]))
    model = train_captions(run, device=CPU)
    assert model.checkpoint.metrics == load_checkpoint(tiny_run).metrics
    assert "There were no labelled clips" in (run.output / "report.md").read_text()


def test_what_cannot_be_done_is_said_at_once(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(TextModelError, match="decoder nobody/nothing"):
        train_captions(make_run("caption.decoder=nobody/nothing"), device=CPU)
    with pytest.raises(ClapkitError, match="give only one"):
        train_captions(make_run(), device=CPU, overwrite=True, resume=True)
    with pytest.raises(CheckpointError, match="nowhere"):
        train_captions(make_run("train.start_from=nowhere"), device=CPU)
    (tmp_path / "run").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        train_captions(make_run(), device=CPU)
    (tmp_path / "run").rmdir()
    make = captions.make_accelerator

    def two(*arguments: Any) -> Any:
        accelerator = make(*arguments)
        monkeypatch.setattr(type(accelerator), "num_processes", 2)
        return accelerator

    monkeypatch.setattr(captions, "make_accelerator", two)
    with pytest.raises(TrainingError, match="one process"):
        train_captions(make_run(), device=CPU)


def test_the_start_is_left_alone(make_run: Callable[..., Run], tiny_run: Path) -> None:
    before = {file: file.read_bytes() for file in tiny_run.rglob("*") if file.is_file()}
    model = train_captions(make_run("train.epochs=1"), device=CPU)
    assert {file: file.read_bytes() for file in tiny_run.rglob("*") if file.is_file()} == before
    assert weights_fingerprint(model.clap) == weights_fingerprint(load_checkpoint(tiny_run).clap)
