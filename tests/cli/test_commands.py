"""Every command as a user types it, and the JSON that programs read."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from matplotlib.image import imread

import clapkit
from clapkit.cli.app import COMMANDS, main
from clapkit.model import AudioTextModel

TINY_SETTINGS = (
    "audio.sample_rate=16000", "audio.window_s=1.0", "audio.n_mels=32", "encoder.width=8", "text.name=bert-small",
    "text.hidden_size=32", "text.n_layers=1", "model.embed_dim=32", "train.batch_size=8",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that write to the current folder write here."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def index(tiny_model: AudioTextModel, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    clapkit.AudioIndex.build(tiny_model, sounds).save(folder)
    return folder


def _document(result: Any) -> Any:
    """The one JSON document on standard output."""
    assert result.code == 0, result.err
    return json.loads(result.out)


def _settings() -> list[str]:
    return [word for setting in TINY_SETTINGS for word in ("--set", setting)]


def _check_ranking(scores: list[dict], labels: set[str]) -> None:
    assert all(list(score) == ["label", "score", "similarity"] for score in scores)
    assert {score["label"] for score in scores} == labels
    assert [score["score"] for score in scores] == sorted((score["score"] for score in scores), reverse=True)


def test_zeroshot_json(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    file = sounds / "low" / "0.wav"
    document = _document(cli("zeroshot", file, "--labels", "low,high,rain", "--checkpoint", tiny_run, "--json"))
    assert list(document) == ["results"]
    (result,) = document["results"]
    assert list(result) == ["file", "scores"]
    assert result["file"] == str(file)
    _check_ranking(result["scores"], {"low", "high", "rain"})
    assert sum(score["score"] for score in result["scores"]) == pytest.approx(1, abs=1e-5)


def test_zeroshot_agrees_with_python(cli: Callable, tiny_run: Path, tiny_model: AudioTextModel, sounds: Path) -> None:
    file, template = sounds / "low" / "0.wav", "this is {label}"
    words = ("zeroshot", "--labels", "low, high", file, "--checkpoint", tiny_run, "--template", template, "--json")
    (result,) = _document(cli(*words))["results"]
    expected = tiny_model.zeroshot(file, ["low", "high"], template=template)
    for score, wanted in zip(result["scores"], expected, strict=True):
        assert score == pytest.approx(vars(wanted), abs=1e-5)


def test_labels_from_a_file(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(
        "# what to compare\nlow\n\nregen in städten\nmusic, far away\n", encoding="utf-8"
    )
    words = ("zeroshot", sounds / "low" / "0.wav", "--labels", "@labels.txt", "--checkpoint", tiny_run, "--json")
    (result,) = _document(cli(*words))["results"]
    _check_ranking(result["scores"], {"low", "regen in städten", "music, far away"})


def test_labels_with_descriptions_agree_with_python(
    cli: Callable, tiny_run: Path, tiny_model: AudioTextModel, sounds: Path, tmp_path: Path
) -> None:
    file = sounds / "low" / "0.wav"
    (tmp_path / "labels.txt").write_text("hum: a deep hum, far away; a low growl\nhigh\n", encoding="utf-8")
    words = ("zeroshot", file, "--labels", "@labels.txt", "--checkpoint", tiny_run, "--json")
    (result,) = _document(cli(*words))["results"]
    expected = tiny_model.zeroshot(file, {"hum": ["a deep hum, far away", "a low growl"], "high": []})
    for score, wanted in zip(result["scores"], expected, strict=True):
        assert score == pytest.approx(vars(wanted), abs=1e-5)


def test_zeroshot_for_people(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    result = cli("zeroshot", "--labels", "low,high", sounds / "low" / "0.wav", "--checkpoint", tiny_run)
    assert result.code == 0
    title, *lines = result.out.splitlines()
    assert title == str(sounds / "low" / "0.wav")
    assert len(lines) == 2
    assert all("%" in line and "similarity" in line for line in lines)


def test_zeroshot_without_a_file_scores_the_example_clip(cli: Callable, tiny_run: Path) -> None:
    result = cli("zeroshot", "--labels", "low,high", "--checkpoint", tiny_run, "--json")
    (scored,) = _document(result)["results"]
    assert Path(scored["file"]).is_file()
    assert "synthetic siren" in result.err


@pytest.mark.parametrize(
    ("words", "n_labels"), [((), 3), (("--top-k", "1"), 1), (("-k", "2"), 2), (("--top-k", "9"), 3)]
)
def test_classify_json(cli: Callable, tiny_run: Path, sounds: Path, words: tuple[str, ...], n_labels: int) -> None:
    result = cli("classify", sounds / "low" / "0.wav", "--checkpoint", tiny_run, "--json", *words)
    (scored,) = _document(result)["results"]
    assert len(scored["scores"]) == n_labels
    _check_ranking(scored["scores"], {score["label"] for score in scored["scores"]} & {"low", "middle", "high"})


def test_classify_takes_folders_and_files_in_the_given_order(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    words = ("classify", sounds / "middle", sounds / "low" / "3.wav", "--checkpoint", tiny_run, "--json")
    files = [result["file"] for result in _document(cli(*words))["results"]]
    assert files == [str(sounds / "middle" / f"{number}.wav") for number in range(6)] + [str(sounds / "low" / "3.wav")]


@pytest.mark.parametrize(
    ("task", "figures"),
    [
        ("head", {"accuracy", "macro_f1", "per_class"}),
        ("zeroshot", {"accuracy", "macro_f1", "per_class"}),
        ("retrieval", {"map_at_10", "r_at_1", "r_at_5", "r_at_10"}),
    ],
)
def test_evaluate_json(cli: Callable, tiny_run: Path, sounds: Path, task: str, figures: set[str]) -> None:
    words = ("evaluate", "--dataset", "folder", "--root", sounds, "--checkpoint", tiny_run, "--task", task, "--json")
    result = cli(*words)
    document = _document(result)
    assert {"dataset", "task", "fold", "n_clips", "n_seen_in_training", "checkpoint"} | figures <= set(document)
    assert (document["dataset"], document["task"], document["n_clips"]) == ("folder", task, 18)
    assert document["n_seen_in_training"] == 15
    assert "leaky: 15 of 18 clips" in result.err


def test_evaluate_for_people(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    result = cli("evaluate", "--dataset", "folder", "--root", sounds, "--checkpoint", tiny_run)
    assert result.code == 0
    assert "accuracy" in result.out
    assert "middle" in result.out


def test_info_json(cli: Callable, tiny_run: Path, tiny_model: AudioTextModel) -> None:
    document = _document(cli("info", tiny_run, "--json"))
    assert document["labels"] == ["high", "low", "middle"]
    assert document["audio"]["sample_rate"] == 16_000
    assert document["embed_dim"] == 32
    assert document["fingerprint"] == tiny_model.fingerprint
    assert document["training"]["epochs"] == 2
    assert document["parameters"]["audio tower"] < document["parameters"]["whole model"]


def test_info_for_people(cli: Callable, tiny_run: Path) -> None:
    result = cli("info", tiny_run)
    assert result.code == 0
    for words in ("16000 Hz mono", "high, low, middle", "bert-small", "accuracy"):
        assert words in result.out


def test_search_json(cli: Callable, index: Path, sounds: Path) -> None:
    document = _document(cli("search", "a low hum", "--index", index, "-k", "4", "--json"))
    assert list(document) == ["query", "hits"]
    assert document["query"] == "a low hum"
    assert len(document["hits"]) == 4
    for hit in document["hits"]:
        assert list(hit) == ["path", "score", "start_s", "end_s", "id"]
        assert Path(hit["path"]).is_relative_to(sounds.resolve())
    scores = [hit["score"] for hit in document["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_index_then_search(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    built = cli("index", sounds / "low", sounds / "high" / "0.wav", "--output", "found", "--checkpoint", tiny_run)
    assert built.code == 0
    assert built.out.startswith("7 files in found")
    found = cli("search", "low", "--index", tmp_path / "found")
    assert found.code == 0
    assert len(found.out.splitlines()) == 7
    assert str(sounds / "low" / "0.wav") in found.out


def test_search_with_a_checkpoint_that_has_moved(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    here = shutil.copytree(tiny_run, tmp_path / "here")
    assert cli("index", sounds / "low", "--output", "found", "--checkpoint", here).code == 0
    here.rename(tmp_path / "there")
    assert cli("search", "low", "--index", "found").code == 2
    assert len(_document(cli("search", "low", "--index", "found", "--checkpoint", "there", "--json"))["hits"]) == 6


def test_found_sounds_are_not_written_over_a_file(cli: Callable, index: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.wav"
    taken.write_text("mine")
    failed = cli("search", "low", "--index", index, "--extract", taken)
    assert failed.code == 2
    assert "is a file; expected a folder" in failed.err
    assert taken.read_text() == "mine"


def test_a_hit_whose_file_is_gone_is_named_and_the_others_are_written(
    cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(sounds / "low", tmp_path / "own")
    assert cli("index", own, "--output", "gone", "--checkpoint", tiny_run).code == 0
    lost, *others = sorted(own.iterdir())
    lost.unlink()
    result = cli("search", "low", "--index", "gone", "-k", 50, "--per-file", "--extract", "found")
    assert result.code == 0
    assert f"{lost}: no such file" in result.err
    assert "index-update" in result.err
    assert len(list((tmp_path / "found").iterdir())) == len(others)
    assert len(result.out.splitlines()) == len(others) + 1


def test_shards_are_merged(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    for part in ("low", "high"):
        assert cli("index", sounds / part, "--output", part, "--checkpoint", tiny_run).code == 0
    before = clapkit.AudioIndex.load(tmp_path / "low").n_files
    merged = cli("index-merge", "low", "high")
    assert merged.code == 0, merged.err
    more = clapkit.AudioIndex.load(tmp_path / "high").n_files
    assert f"{more} files added" in merged.out
    assert clapkit.AudioIndex.load(tmp_path / "low").n_files == before + more
    assert cli("index-merge", "low").code == 2
    assert "is not an index" in cli("index-merge", "low", sounds).err


def test_index_keeps_what_is_there_unless_told_otherwise(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    words = ("index", sounds / "low", "--output", "found", "--checkpoint", tiny_run)
    assert [cli(*words).code, cli(*words).code, cli(*words, "--overwrite").code] == [0, 2, 0]


def test_train_json_then_use(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    words = ("train", "--dataset", "folder", "--root", sounds, "--output", "run", "--epochs", "1", "--seed", "3")
    document = _document(cli(*words, *_settings(), "--json"))
    assert document["checkpoint"] == "run"
    assert set(document["metrics"]) == {"head", "zeroshot", "retrieval"}
    config = clapkit.load(tmp_path / "run", device="cpu").config
    assert (config.train.epochs, config.train.seed, config.model.embed_dim) == (1, 3, 32)
    assert cli("classify", sounds / "low" / "0.wav", "--checkpoint", "run").code == 0


def test_train_for_people_says_where_the_checkpoint_is(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    result = cli("train", "--dataset", "folder", "--root", sounds, "--epochs", "1", *_settings())
    assert result.code == 0
    assert "accuracy by the head" in result.out
    assert "saved runs/folder" in result.out
    assert (tmp_path / "runs" / "folder" / "checkpoint.yaml").is_file()
    assert "epoch 1/1" in result.err


def test_a_yaml_file_takes_the_place_of_the_preset_and_set_wins(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model:\n  embed_dim: 48\ntrain:\n  epochs: 1\n")
    words = ("train", "--dataset", "folder", "--root", sounds, "--output", "run", "--config", "mine.yaml")
    assert cli(*words, *_settings()[:-4], "--set", "train.batch_size=4").code == 0
    config = clapkit.load(tmp_path / "run", device="cpu").config
    assert (config.model.embed_dim, config.train.epochs, config.train.batch_size) == (48, 1, 4)


def test_nothing_but_the_document_reaches_standard_output(
    sounds: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries written in Rust and C++ print past Python, so the file descriptor is read."""
    words = ["train", "--dataset", "folder", "--root", str(sounds), "--output", "run", "--epochs", "1", "--json"]
    monkeypatch.setattr("sys.argv", ["clapkit", *words, *_settings()])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capfd.readouterr().out.startswith("{")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_terminals_without_unicode_get_their_scores(
    encoding: str, tiny_run: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(
        "sys.argv", ["clapkit", "classify", str(sounds / "low" / "0.wav"), "--checkpoint", str(tiny_run)]
    )
    with pytest.raises(SystemExit, match="0"):
        main()
    terminal.flush()
    assert b"similarity" in terminal.buffer.getvalue()


def test_plot_draws_a_sound(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    result = cli("plot", sounds / "low" / "0.wav")
    assert (result.code, result.out) == (0, "saved 0.png\n")
    assert imread(tmp_path / "0.png").size > 0


def test_plot_with_a_checkpoint_adds_its_labels(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    file = sounds / "low" / "0.wav"
    assert cli("plot", file, "-o", "plain.png").code == 0
    assert cli("plot", file, "--output", "scored.png", "--checkpoint", tiny_run).code == 0
    assert imread(tmp_path / "scored.png").shape[0] > imread(tmp_path / "plain.png").shape[0]


def test_datasets_names_places_sizes_and_ways(cli: Callable) -> None:
    result = cli("datasets")
    assert result.code == 0
    for words in ("UrbanSound8K", "ESC-50", "--download", "folder", "csv", "synthetic", "CLAPKIT_DATA"):
        assert words in result.out


def test_version(cli: Callable) -> None:
    assert cli("--version").out.strip() == clapkit.__version__


@pytest.mark.parametrize("words", [("--help",), ("-h",), ()])
def test_help_lists_every_command(cli: Callable, words: tuple[str, ...]) -> None:
    result = cli(*words)
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli: Callable, command: str) -> None:
    result = cli(command, "--help")
    assert result.code == 0
    assert f"clapkit {command}" in result.out
    assert COMMANDS[command][1].rstrip(".").split(":")[0].split(",")[0] in " ".join(result.out.split())


def test_quiet_leaves_standard_error_empty(cli: Callable, tiny_run: Path, sounds: Path, index: Path) -> None:
    file = sounds / "low" / "0.wav"
    for words in (
        ("--quiet", "zeroshot", file, "--labels", "low,high", "--checkpoint", tiny_run),
        ("classify", file, "--checkpoint", tiny_run, "--quiet"),
        ("search", "low", "--index", index, "--quiet"),
        ("train", "--quiet", "--dataset", "folder", "--root", sounds, "--epochs", "1", *_settings()),
    ):
        result = cli(*words)
        assert (result.code, result.err) == (0, "")
        assert result.out


def test_notes_go_to_standard_error(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    result = cli("zeroshot", sounds / "low" / "0.wav", "--labels", "low", "--checkpoint", tiny_run)
    assert f"checkpoint {tiny_run} on" in result.err
    assert f"checkpoint {tiny_run}" not in result.out


def test_stereo_and_other_rates_are_taken(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    samples, _ = soundfile.read(sounds / "low" / "0.wav")
    soundfile.write(tmp_path / "stereo.flac", [[each, -each / 2] for each in samples], 44_100)
    result = cli("classify", "stereo.flac", "--checkpoint", tiny_run, "--json")
    assert len(_document(result)["results"]) == 1


def test_a_csv_with_a_split_column_is_tested_on_its_test_rows(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    files = sorted(sounds.rglob("*.wav"))
    rows = [f"{file},{file.parent.name},{'test' if file.stem == '5' else 'train'}" for file in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    words = ("train", "--dataset", "csv", "--root", tmp_path / "table.csv", "--output", tmp_path / "run", "--json")
    tiny = ("--set", "encoder.width=4", "--set", "text.name=bert-small", "--set", "audio.window_s=1", "--epochs", 1)
    result = cli(*words, *tiny)
    assert result.code == 0
    assert json.loads(result.out)["metrics"]["head"]["n_clips"] == 3


def test_a_bad_clip_of_the_test_is_found_before_training(cli: Callable, sounds: Path, tmp_path: Path) -> None:
    files = sorted(sounds.rglob("*.wav"))
    (tmp_path / "bad.wav").write_text("not a sound")
    rows = [f"{file},{file.parent.name},train" for file in files] + [f"{tmp_path / 'bad.wav'},low,test"]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    words = ("train", "--dataset", "csv", "--root", tmp_path / "table.csv", "--output", tmp_path / "run")
    result = cli(*words, "--set", "text.name=bert-small", "--epochs", 1)
    assert result.code == 2
    assert "bad.wav: cannot be decoded" in result.err
    assert "epoch 1" not in result.err


def test_a_missing_file_among_others_is_skipped_and_listed(cli: Callable, sounds: Path, tiny_run: Path) -> None:
    good = sounds / "low" / "0.wav"
    result = cli("classify", good, sounds / "gone.wav", "--checkpoint", tiny_run, "--json")
    assert result.code == 0
    assert [each["file"] for each in json.loads(result.out)["results"]] == [str(good)]
    assert "gone.wav: no such file" in result.err
