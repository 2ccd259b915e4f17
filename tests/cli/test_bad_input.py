"""A user's mistake is one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from safetensors.torch import load_file, save_file

import clapkit
from clapkit.model import AudioTextModel

RATE = 16_000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that write to the current folder write here."""
    monkeypatch.chdir(tmp_path)


def _check_refused(result: Any, *parts: str) -> None:
    """Exit code 2 and one line with all parts behind any notes; nothing on standard output."""
    assert result.code == 2, result.out + result.err
    assert "Traceback" not in result.err
    complaints = [line for line in result.err.splitlines() if line.startswith("clapkit: ")]
    assert len(complaints) == 1, result.err
    assert result.err.splitlines()[-1] == complaints[0]
    for part in parts:
        assert part in complaints[0]
    assert result.out == ""


def _write_sound(file: Path) -> Path:
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    return file


def _bad_sound(kind: str, folder: Path) -> Path:
    file = folder / f"{kind}.wav"
    if kind == "empty":
        file.touch()
    elif kind == "truncated":
        content = _write_sound(file).read_bytes()
        file.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        file.write_text("this is a recipe, not a sound")
    elif kind == "picture":
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    elif kind == "zero_length":
        soundfile.write(file, np.zeros(0), RATE)
    elif kind == "nan":
        soundfile.write(file, np.full(RATE, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    elif kind == "cut_flac":
        file = file.with_suffix(".flac")
        content = _write_sound(file).read_bytes()
        file.write_bytes(content[: len(content) // 2])
    return file


SOUND_PROBLEMS = {
    "missing": "no such file", "empty": "is empty", "truncated": "truncated", "text": "cannot be decoded",
    "picture": "cannot be decoded", "zero_length": "no samples", "nan": "NaN", "cut_flac": "flac",
}  # fmt: skip


@pytest.mark.parametrize("command", ["zeroshot", "classify", "index", "plot"])
@pytest.mark.parametrize("kind", SOUND_PROBLEMS)
def test_a_bad_sound(cli: Callable, tiny_run: Path, tmp_path: Path, kind: str, command: str) -> None:
    file = _bad_sound(kind, tmp_path)
    more = {"zeroshot": ("--labels", "low,high"), "index": ("--output", "index")}.get(command, ())
    _check_refused(cli(command, file, "--checkpoint", tiny_run, *more), file.name, SOUND_PROBLEMS[kind])
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("command", ["zeroshot", "classify", "index"])
def test_a_folder_without_sounds(cli: Callable, tiny_run: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "quiet").mkdir()
    (tmp_path / "quiet" / "notes.txt").touch()
    more = {"zeroshot": ("--labels", "low,high"), "index": ("--output", "index")}.get(command, ())
    _check_refused(cli(command, "quiet", "--checkpoint", tiny_run, *more), "quiet: no sounds inside")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("", "no labels given"),
        (" , ,", "no labels given"),
        ("low,,high", "label 2 of 3 is empty"),
        ("low,high,low", "'low' is given twice"),
        ("dog bark,Dog_Bark", "'Dog_Bark' is given twice"),
        ("@nowhere.txt", "nowhere.txt: no such file"),
        ("@.", "no such file"),
        ("@empty.txt", "no labels given"),
        ("@twice.txt", "twice.txt: label 'low' is given twice"),
        ("@noise.bin", "noise.bin: not UTF-8"),
        ("@long.txt", "long.txt, line 2: not a label"),
        ("@control.txt", "control.txt, line 1: not a label"),
    ],
)
def test_bad_labels(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path, labels: str, reason: str) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "twice.txt").write_text("low\nhigh\nlow\n")
    (tmp_path / "noise.bin").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "long.txt").write_text("low\n" + "very " * 100 + "\n")
    (tmp_path / "control.txt").write_text("lo\x07w\n")
    words = ("zeroshot", sounds / "low" / "0.wav", "--checkpoint", tiny_run, "--labels", labels)
    _check_refused(cli(*words), reason)


@pytest.mark.parametrize("template", ["the sound of", "", "{lable}"])
def test_a_template_without_its_place_for_the_label(cli: Callable, tiny_run: Path, sounds: Path, template: str) -> None:
    words = ("zeroshot", sounds / "low" / "0.wav", "--labels", "low", "--checkpoint", tiny_run, "--template", template)
    _check_refused(cli(*words), "must contain {label}")


@pytest.mark.parametrize("command", ["classify", "index"])
def test_no_file_at_all(cli: Callable, tiny_run: Path, command: str) -> None:
    more = ("--output", "index") if command == "index" else ()
    _check_refused(cli(command, "--checkpoint", tiny_run, *more), "expected")


@pytest.mark.parametrize("top_k", ["0", "-3"])
def test_a_number_of_labels_below_one(cli: Callable, tiny_run: Path, sounds: Path, top_k: str) -> None:
    words = ("classify", sounds / "low" / "0.wav", "--checkpoint", tiny_run, f"--top-k={top_k}")
    _check_refused(cli(*words), f"--top-k {top_k}")


COMMANDS_WITH_CHECKPOINT = {
    "zeroshot": ("zeroshot", "sound.wav", "--labels", "low", "--checkpoint"),
    "classify": ("classify", "sound.wav", "--checkpoint"),
    "evaluate": ("evaluate", "--dataset", "folder", "--root", "sounds", "--checkpoint"),
    "index": ("index", "sound.wav", "--output", "index", "--checkpoint"),
    "plot": ("plot", "sound.wav", "--checkpoint"),
    "info": ("info",),
}


@pytest.fixture
def material(sounds: Path, tmp_path: Path) -> None:
    """What ``COMMANDS_WITH_CHECKPOINT`` name."""
    _write_sound(tmp_path / "sound.wav")
    (tmp_path / "sounds").symlink_to(sounds)


@pytest.mark.usefixtures("material")
@pytest.mark.parametrize("command", COMMANDS_WITH_CHECKPOINT)
def test_no_such_checkpoint(cli: Callable, command: str) -> None:
    _check_refused(cli(*COMMANDS_WITH_CHECKPOINT[command], "runs/nowhere"), "runs/nowhere", "no such folder")


@pytest.mark.usefixtures("material")
@pytest.mark.parametrize("command", COMMANDS_WITH_CHECKPOINT)
def test_a_folder_that_is_no_checkpoint(cli: Callable, tmp_path: Path, command: str) -> None:
    (tmp_path / "other").mkdir()
    _check_refused(cli(*COMMANDS_WITH_CHECKPOINT[command], "other"), "other: holds no checkpoint.yaml")


def _damaged_checkpoint(damage: str, folder: Path) -> str:
    """Damage a checkpoint and return what the message must say."""
    record, weights = folder / "checkpoint.yaml", folder / "model.safetensors"
    if damage == "another version":
        record.write_text(yaml.safe_dump(yaml.safe_load(record.read_text()) | {"format_version": 99}))
        return "format version 99"
    if damage == "missing keys":
        tensors = load_file(weights)
        del tensors["logit_scale"]
        save_file(tensors, weights)
        return "missing key(s) such as logit_scale"
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-100])
        return "damaged"
    if damage == "no config":
        (folder / "config.yaml").unlink()
        return "config.yaml"
    (folder / "metrics.json").write_text('{"head": ')
    return "metrics.json"


@pytest.mark.usefixtures("material")
@pytest.mark.parametrize("damage", ["another version", "missing keys", "truncated weights", "no config", "cut metrics"])
def test_a_damaged_checkpoint(cli: Callable, tiny_run: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(tiny_run, tmp_path / "damaged")
    reason = _damaged_checkpoint(damage, folder)
    _check_refused(cli("classify", "sound.wav", "--checkpoint", folder), str(folder), reason)


def test_an_index_of_another_preprocessing(
    cli: Callable, tiny_model: AudioTextModel, sounds: Path, tmp_path: Path
) -> None:
    clapkit.AudioIndex.build(tiny_model, sounds / "low").save(tmp_path / "index")
    record = json.loads((tmp_path / "index" / "index.json").read_text())
    record["fingerprint"]["preprocessing"] = "0123456789abcdef"
    (tmp_path / "index" / "index.json").write_text(json.dumps(record))
    own = tiny_model.fingerprint["preprocessing"]
    _check_refused(cli("search", "low", "--index", "index"), "preprocessing", "0123456789abcdef", own)


def test_a_folder_that_is_no_index(cli: Callable, tmp_path: Path) -> None:
    _check_refused(cli("search", "low", "--index", tmp_path), "is not an index")
    _check_refused(cli("search", "low", "--index", "nowhere"), "is not an index")


def test_searches_that_make_no_sense(cli: Callable, tiny_model: AudioTextModel, sounds: Path, tmp_path: Path) -> None:
    clapkit.AudioIndex.build(tiny_model, sounds / "low").save(tmp_path / "index")
    _check_refused(cli("search", " ", "--index", "index"), "empty text")
    _check_refused(cli("search", "low", "--index", "index", "-k", "0"), "k=0")


def _train(cli: Callable, sounds: Path, *words: object) -> Any:
    return cli("train", "--dataset", "folder", "--root", sounds, "--output", "run", *words)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("train:\n  epoch: 3\n", ("mine.yaml", "unknown key 'train.epoch'", "did you mean 'train.epochs'")),
        ("modle:\n  embed_dim: 3\n", ("mine.yaml", "unknown key 'modle'", "did you mean 'model'")),
        ("train:\n  epochs: many\n", ("mine.yaml", "train.epochs")),
        ("audio:\n  window_s: -1\n", ("mine.yaml", "audio.window_s=-1")),
        ("train: [1, 2\n", ("mine.yaml", "not readable as YAML")),
        ("- a\n- b\n", ("mine.yaml", "expected")),
    ],
)
def test_a_bad_yaml_file(cli: Callable, sounds: Path, tmp_path: Path, content: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    _check_refused(_train(cli, sounds, "--config", "mine.yaml"), *parts)


def test_a_missing_yaml_file(cli: Callable, sounds: Path) -> None:
    _check_refused(_train(cli, sounds, "--config", "nowhere.yaml"), "nowhere.yaml: no such file")


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("train.epoch=3", ("unknown key 'train.epoch'", "train.epochs")),
        ("nonsense=3", ("unknown key 'nonsense'",)),
        ("train.epochs=0", ("train.epochs=0",)),
        ("model.embed_dim=-5", ("model.embed_dim=-5",)),
        ("encoder.name=resnet", ("encoder.name='resnet'", "rescnn")),
        ("audio.f_max_hz=90000", ("f_max_hz",)),
        ("train.epochs", ("expected section.key=value",)),
        ("train.epochs=[1", ("--set train.epochs=[1",)),
    ],
)
def test_a_bad_setting(cli: Callable, sounds: Path, setting: str, parts: tuple[str, ...]) -> None:
    _check_refused(_train(cli, sounds, "--set", setting), *parts)


@pytest.mark.parametrize("shortcut", [("--epochs", "0"), ("--seed=-1",), ("--seed", "99999999999999999999")])
def test_a_bad_shortcut(cli: Callable, sounds: Path, shortcut: tuple[str, ...]) -> None:
    _check_refused(_train(cli, sounds, *shortcut), "train.")


def _folds_csv(sounds: Path, tmp_path: Path) -> Path:
    files = [sounds / name / f"{number}.wav" for name in ("low", "high") for number in range(4)]
    rows = [f"{file},{file.parent.name},{1 + number % 2}" for number, file in enumerate(files)]
    (tmp_path / "folds.csv").write_text("\n".join(["path,label,fold", *rows]) + "\n")
    return tmp_path / "folds.csv"


@pytest.mark.parametrize("fold", ["3", "-1"])
def test_a_test_fold_that_is_absent(cli: Callable, sounds: Path, tmp_path: Path, fold: str) -> None:
    words = ("train", "--dataset", "csv", "--root", _folds_csv(sounds, tmp_path), "--output", "run")
    _check_refused(cli(*words, f"--test-fold={fold}"), f"test fold {fold}", "1, 2")


def test_a_test_fold_of_a_dataset_without_folds(cli: Callable, sounds: Path) -> None:
    _check_refused(_train(cli, sounds, "--test-fold", "1"), "has no folds")


def test_an_evaluation_fold_that_is_absent(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--dataset", "csv", "--root", _folds_csv(sounds, tmp_path), "--checkpoint", tiny_run)
    _check_refused(cli(*words, "--fold", "7"), "fold 7", "1, 2")


def test_labels_that_the_head_does_not_know(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name in ("rain", "wind"):
        shutil.copytree(sounds / "low", tmp_path / "other" / name)
    words = ("evaluate", "--dataset", "folder", "--root", "other", "--checkpoint", tiny_run)
    _check_refused(cli(*words), "does not know 2 of the 2 labels", "--task zeroshot")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_published_dataset_that_is_not_on_this_machine(cli: Callable, command: str) -> None:
    result = cli(command, "--dataset", "us8k")
    assert result.code == 2
    assert result.err.startswith("clapkit: UrbanSound8K is not on this machine")
    for way in ("--root", "--download", "--dataset synthetic", "CLAPKIT_DATA"):
        assert way in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(("dataset", "wanted"), [("folder", "class folders"), ("csv", "CSV file")])
def test_own_sounds_need_a_root(cli: Callable, dataset: str, wanted: str) -> None:
    _check_refused(cli("train", "--dataset", dataset), "--root", wanted)


@pytest.mark.parametrize("dataset", ["folder", "csv"])
def test_a_root_that_is_absent(cli: Callable, dataset: str) -> None:
    _check_refused(cli("train", "--dataset", dataset, "--root", "nowhere"), "nowhere: no such")


def test_an_output_that_exists(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    result = _train(cli, sounds)
    assert (result.code, result.out) == (2, "")
    assert "run: exists already; choose another --output or add --overwrite" in result.err
    words = ("index", sounds, "--output", "run", "--checkpoint", tiny_run)
    _check_refused(cli(*words), "run: exists already", "--overwrite")


def test_an_unknown_device(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    words = ("classify", sounds / "low" / "0.wav", "--checkpoint", tiny_run, "--device", "abacus")
    _check_refused(cli(*words), "device 'abacus'")


@pytest.mark.parametrize("output", ["nowhere/clip.png", "clip.xyz"])
def test_a_picture_that_cannot_be_written(cli: Callable, sounds: Path, output: str) -> None:
    _check_refused(cli("plot", sounds / "low" / "0.wav", "-o", output), Path(output).name)


@pytest.mark.parametrize(
    "words",
    [
        ("frobnicate",),
        ("zeroshot", "sound.wav"),
        ("classify", "sound.wav", "--frobnicate"),
        ("classify", "sound.wav", "--top-k", "many"),
        ("train", "--dataset", "imagenet"),
        ("search", "low"),
    ],
)
def test_a_command_line_that_does_not_parse(cli: Callable, words: tuple[str, ...]) -> None:
    result = cli(*words)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert result.out == ""


@pytest.fixture
def mixed(sounds: Path, tmp_path: Path) -> Path:
    """Three good sounds and a bad one between them."""
    folder = shutil.copytree(sounds / "low", tmp_path / "mixed", ignore=shutil.ignore_patterns("[345].wav"))
    (folder / "1b.wav").write_text("not a sound")
    return folder


BULK = {
    "zeroshot": ("zeroshot", "--labels", "low,high"),
    "classify": ("classify",),
    "index": ("index", "--output", "index"),
}


@pytest.mark.parametrize("command", BULK)
def test_one_bad_file_among_many_is_skipped_and_listed(
    cli: Callable, tiny_run: Path, mixed: Path, command: str
) -> None:
    result = cli(*BULK[command], mixed, "--checkpoint", tiny_run, "--quiet")
    assert result.code == 0
    headline, listed = result.err.splitlines()
    assert headline == "1 of 4 files were skipped:"
    assert str(mixed / "1b.wav") in listed


@pytest.mark.parametrize("command", ["zeroshot", "classify"])
def test_the_other_files_are_scored(cli: Callable, tiny_run: Path, mixed: Path, command: str) -> None:
    result = cli(*BULK[command], mixed, "--checkpoint", tiny_run, "--json")
    files = [Path(scored["file"]).name for scored in json.loads(result.out)["results"]]
    assert files == ["0.wav", "1.wav", "2.wav"]


@pytest.mark.parametrize("command", BULK)
def test_strict_stops_at_the_bad_file(cli: Callable, tiny_run: Path, mixed: Path, tmp_path: Path, command: str) -> None:
    _check_refused(cli(*BULK[command], mixed, "--checkpoint", tiny_run, "--strict"), "1b.wav")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("command", BULK)
def test_only_bad_files_are_an_error(cli: Callable, tiny_run: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "bad").mkdir()
    for kind in ("empty", "text", "nan"):
        _bad_sound(kind, tmp_path / "bad")
    result = cli(*BULK[command], "bad", "--checkpoint", tiny_run)
    _check_refused(result, "none of the 3 file")
    assert "is empty" in result.err
    assert not (tmp_path / "index").exists()


def test_training_names_the_clip_that_it_cannot_use(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sounds, tmp_path / "copy")
    for file in (copy / "low").iterdir():
        file.write_text("not a sound")
    result = cli("train", "--dataset", "folder", "--root", copy, "--output", "run", "--set", "text.name=bert-small")
    _check_refused(result, "cannot be decoded")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--folds", "all", "--test-fold", "1"), ("--folds", "--test-fold")),
        (("--folds", "all"), ("needs two folds",)),
        (("--split", "random", "--folds", "all"), ("--split random",)),
        (("--val-fold", "2"), ("--val-fold 2", "train.patience")),
        (("--hold-out-classes", "lwo"), ("'lwo'", "did you mean 'low'")),
        (("--hold-out-classes", "low,middle"), ("fewer than two classes",)),
        (("--weights", "1,2"), ("--weights 1,2", "1 positive number")),
        (("--overwrite", "--resume"), ("--overwrite", "--resume")),
    ],
)
def test_training_options_that_make_no_sense(
    cli: Callable, sounds: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    _check_refused(_train(cli, sounds, *words), *parts)


def test_runs_that_are_none_cannot_be_compared(cli: Callable, tmp_path: Path) -> None:
    _check_refused(cli("compare", tmp_path), str(tmp_path), "no finished run")


@pytest.mark.parametrize(
    "words", [("index", "", "--output", "i"), ("index-remove", "i", ""), ("embed", "", "--output", "v")]
)
def test_an_empty_argument_is_not_the_current_folder(cli: Callable, words: tuple[str, ...], tmp_path: Path) -> None:
    _write_sound(tmp_path / "here.wav")
    _check_refused(cli(*words), f"clapkit {words[0]}", "an argument is empty")
    assert [file.name for file in tmp_path.iterdir()] == ["here.wav"]
