"""To the Hub and from its cache, with the Hub played by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import pytest
import yaml

import clapkit
from clapkit.errors import CheckpointError, ClapkitError
from clapkit.model import AudioTextModel
from clapkit.models import hub
from clapkit.models.card import model_card


class FakeHub:
    """Keeps uploaded folders in memory."""

    uploads: ClassVar[dict[str, dict[str, bytes]]] = {}

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, **_: Any) -> str:
        if self.token == "wrong":
            raise OSError("401 Unauthorized\nmore lines")
        return f"https://hub/{repo_id}"

    def upload_folder(self, repo_id: str, folder_path: Path) -> None:
        files = {
            str(file.relative_to(folder_path)): file.read_bytes() for file in folder_path.rglob("*") if file.is_file()
        }
        self.uploads[repo_id] = files


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    return FakeHub


def test_a_pushed_model_comes_back(
    tiny_model: AudioTextModel, played: type[FakeHub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tiny_model.push_to_hub("me/mine") == "https://hub/me/mine"
    for name, content in played.uploads["me/mine"].items():
        (tmp_path / "snapshot" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "snapshot" / name).write_bytes(content)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "snapshot"))
    back = clapkit.load("me/mine", device="cpu")
    sound = np.sin(np.arange(8000) / 9).astype(np.float32)
    np.testing.assert_array_equal(back.embed_audio(sound), tiny_model.embed_audio(sound))
    assert back.labels == tiny_model.labels


def test_a_refused_upload_is_one_line(tiny_model: AudioTextModel, played: type[FakeHub]) -> None:
    with pytest.raises(ClapkitError, match=r"me/mine: could not be uploaded \(401 Unauthorized\)") as error:
        tiny_model.push_to_hub("me/mine", token="wrong")
    assert "\n" not in str(error.value)


def test_a_snapshot_that_is_not_whole_is_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def download(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append(local_files_only)
        if not local_files_only:
            (tmp_path / "model.safetensors").write_bytes(b"x")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.fetch_checkpoint("a/b", None) == tmp_path
    assert asked == [True, False]
    asked.clear()
    assert hub.fetch_checkpoint("a/b", None) == tmp_path
    assert asked == [True]


def test_without_download_only_the_cache_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, local_files_only: bool, **__: Any) -> str:
        assert local_files_only
        raise OSError("not there")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"a/b/c\.pth: not in the Hub's cache"):
        hub.fetch_checkpoint("a/b", "c.pth", download=False)


def test_the_card_tells_what_it_is(tiny_model: AudioTextModel) -> None:
    card = model_card(tiny_model.checkpoint, "tiny")
    _, front, page = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "clapkit"
    for part in ("# tiny", "high, low, middle", "| sample_rate | 16000 |", "| head: accuracy |", "Weights: not stated"):
        assert part in page
    licensed = {**tiny_model.checkpoint.training, "licence": "Apache-2.0 (of the published weights)"}
    original, tiny_model.checkpoint.training = tiny_model.checkpoint.training, licensed
    try:
        assert "license: apache-2.0" in model_card(tiny_model.checkpoint, "tiny")
    finally:
        tiny_model.checkpoint.training = original
