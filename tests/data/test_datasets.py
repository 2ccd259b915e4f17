"""Datasets are found where users put them, and a missing one is answered with the ways on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapkit.data import datasets
from clapkit.data.datasets import NAMES, PUBLISHED, find_root, load_datasets, load_manifest, search_folders
from clapkit.data.download import ARCHIVES
from clapkit.errors import DatasetError

LAYOUTS = {  # dataset: its metadata, and the clips of their rows
    "us8k": (
        {"metadata/UrbanSound8K.csv": "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
                                      "100-8-0-0.wav,100,0,0.1,1,3,8,siren\n"},
        ["audio/fold3/100-8-0-0.wav"],
    ),
    "esc50": (
        {"meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"
                           "1-100-A-42.wav,1,42,siren,False,100,A\n"},
        ["audio/1-100-A-42.wav"],
    ),
    "fsd50k": (
        {"FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n101,Siren,/m/03kmc9,train\n",
         "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n102,Siren,/m/03kmc9\n",
         "FSD50K.ground_truth/vocabulary.csv": "0,Siren,/m/03kmc9\n"},
        ["FSD50K.dev_audio/101.wav", "FSD50K.eval_audio/102.wav"],
    ),
}  # fmt: skip
FETCHED = [name for name, info in PUBLISHED.items() if info.page is None]


@pytest.fixture(autouse=True)
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search folders that hold nothing yet."""
    monkeypatch.setenv("CLAPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLAPKIT_DATA", raising=False)


def lay_out(name: str, root: Path) -> Path:
    """A small copy of a published dataset."""
    metadata, clips = LAYOUTS[name]
    for file in (*metadata, *clips):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
    for file, content in metadata.items():
        (root / file).write_text(content)
    for clip in clips:
        soundfile.write(root / clip, np.full(800, 0.1), 8_000)
    return root


def error_of(name: str, root: Path | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        load_manifest(name, root)
    return str(caught.value)


# Finding


@pytest.mark.parametrize("name", PUBLISHED)
def test_found_at_its_root_and_in_the_roots_parent(tmp_path: Path, name: str) -> None:
    root = lay_out(name, tmp_path / "data" / PUBLISHED[name].folder)
    assert find_root(name, root) == root
    assert find_root(name, tmp_path / "data") == root


@pytest.mark.parametrize("name", PUBLISHED)
def test_found_under_any_folder_name_when_given(tmp_path: Path, name: str) -> None:
    root = lay_out(name, tmp_path / "my copy")
    assert find_root(name, root) == root


@pytest.mark.parametrize("name", PUBLISHED)
def test_found_through_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    root = lay_out(name, tmp_path / "data" / PUBLISHED[name].folder)
    for given in (tmp_path / "data", root):
        monkeypatch.setenv("CLAPKIT_DATA", str(given))
        assert find_root(name) == root


def test_the_environment_may_name_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLAPKIT_DATA", "~/data")
    assert search_folders()[0] == tmp_path / "data"


@pytest.mark.parametrize("name", PUBLISHED)
def test_found_where_downloads_go_but_after_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    downloaded = lay_out(name, tmp_path / "cache" / "datasets" / PUBLISHED[name].folder)
    assert find_root(name) == downloaded
    own = lay_out(name, tmp_path / "data" / PUBLISHED[name].folder)
    monkeypatch.setenv("CLAPKIT_DATA", str(tmp_path / "data"))
    assert find_root(name) == own


def test_a_given_root_is_the_only_place_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAPKIT_DATA", str(lay_out("us8k", tmp_path / "UrbanSound8K").parent))
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DatasetError, match="not on this machine"):
        find_root("us8k", tmp_path / "elsewhere")


# Not finding


@pytest.mark.parametrize("name", FETCHED)
def test_the_answer_names_the_places_and_three_ways_on(tmp_path: Path, name: str) -> None:
    message = error_of(name, tmp_path / "none")
    info = PUBLISHED[name]
    assert f"{info.title} is not on this machine" in message
    assert f"  {tmp_path / 'none' / info.folder / info.marker}\n  {tmp_path / 'none' / info.marker}\n" in message
    for way in ("--root DIR", "--download", "--dataset synthetic"):
        assert f"\n  {way} " in message
    assert info.contents in message


def test_a_set_that_is_fetched_by_hand_is_answered_with_its_page(tmp_path: Path) -> None:
    message = error_of("fsd50k", tmp_path)
    assert "--download" not in message
    assert "Zenodo record 4060432" in message
    assert str(tmp_path / "FSD50K" / "FSD50K.ground_truth" / "dev.csv") in message
    with pytest.raises(DatasetError, match="clapkit does not fetch FSD50K .*Zenodo record 4060432") as caught:
        load_manifest("fsd50k", tmp_path, download=True)
    assert "\n" not in str(caught.value)


def test_every_set_is_fetched_by_clapkit_or_by_hand() -> None:
    assert set(ARCHIVES) == set(FETCHED)


def test_the_answer_says_when_the_environment_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CLAPKIT_DATA is not set" in error_of("us8k")
    monkeypatch.setenv("CLAPKIT_DATA", str(tmp_path / "data"))
    message = error_of("us8k")
    assert "CLAPKIT_DATA" not in message
    assert str(tmp_path / "data" / "UrbanSound8K" / "metadata") in message


def test_a_download_is_asked_for_only_when_allowed_and_goes_where_it_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path]] = []

    def download(name: str, parent: Path) -> Path:
        asked.append((name, parent))
        return lay_out(name, parent / PUBLISHED[name].folder)

    monkeypatch.setattr(datasets, "download_dataset", download)
    error_of("esc50")
    assert asked == []
    assert len(load_manifest("esc50", download=True).table) == 1
    load_manifest("esc50", download=True)
    assert asked == [("esc50", tmp_path / "cache" / "datasets")]


# Loading by name


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dataset_loads_by_name(tmp_path: Path, name: str) -> None:
    lay_out(name, tmp_path / PUBLISHED[name].folder)
    manifest = load_manifest(name, tmp_path)
    assert manifest.dataset == name
    assert "siren" in manifest.labels
    assert len(manifest.table) == len(LAYOUTS[name][1])


def test_a_folder_and_a_table_load_by_name(sounds: Path, tmp_path: Path) -> None:
    assert load_manifest("folder", sounds).dataset == "folder"
    (tmp_path / "table.csv").write_text(f"path,label\n{sounds}/low/0.wav,low\n")
    assert load_manifest("csv", tmp_path / "table.csv").labels == ("low",)


def test_the_synthetic_set_is_written_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "write_synthetic_us8k", lambda root: lay_out("us8k", root))
    manifest = load_manifest("synthetic")
    assert manifest.dataset == "synthetic"
    assert manifest.table["path"][0].startswith(str(tmp_path / "cache" / "synthetic"))


@pytest.mark.parametrize(("name", "wanted"), [("folder", "a folder of class folders"), ("csv", "a CSV file")])
def test_your_own_sounds_need_a_root(name: str, wanted: str) -> None:
    assert error_of(name) == f"dataset '{name}' needs --root with {wanted}."


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    message = error_of("us9k")
    assert "'us9k'" in message
    assert all(name in message for name in NAMES)


def test_real_layouts_are_found_in_their_parent_folder(real_data: Path) -> None:
    for name, info in PUBLISHED.items():
        assert find_root(name, real_data / "layouts") == real_data / "layouts" / info.folder


# Several as one


def test_several_sets_lie_in_one_parent_folder(tmp_path: Path) -> None:
    for name in ("us8k", "esc50", "fsd50k"):
        lay_out(name, tmp_path / PUBLISHED[name].folder)
    mixed = load_datasets(["us8k", "esc50", "fsd50k"], tmp_path, "1,0.5,2")
    assert mixed.dataset == "us8k+esc50+fsd50k"
    assert mixed.table["weight"].tolist() == [1, 0.5, 2, 2]
    assert mixed.folds == [3]


def test_own_sounds_take_the_root_and_others_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sounds: Path
) -> None:
    lay_out("us8k", tmp_path / "data" / "UrbanSound8K")
    monkeypatch.setenv("CLAPKIT_DATA", str(tmp_path / "data"))
    assert load_datasets(["folder", "us8k"], sounds).dataset == "folder+us8k"
    assert load_datasets(["us8k", "folder"], sounds).folds == [3]


def test_one_set_is_left_as_it_is_unless_weighted(sounds: Path) -> None:
    assert set(load_datasets(["folder"], sounds).table["weight"]) == {1.0}
    assert set(load_datasets(["folder"], sounds, "0.5").table["weight"]) == {0.5}


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,", "", "1,no", "1,0", "1,-1", "1,inf", "nan,1"])
def test_weights_must_be_one_positive_number_for_each(tmp_path: Path, weights: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load_datasets(["us8k", "esc50"], tmp_path, weights)
    assert str(caught.value) == f"--weights {weights}: expected 2 positive numbers, one for each dataset."


@pytest.mark.parametrize("names", [["us8k", "us8k"], ["folder", "csv"]])
def test_a_set_is_mixed_once_and_own_sounds_have_one_place(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(DatasetError, match="expected each dataset once"):
        load_datasets(names, tmp_path)


def test_every_name_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="dataset 'us9k': unknown"):
        load_datasets(["us8k", "us9k"], tmp_path)
