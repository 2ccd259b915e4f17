"""To the Hub and from its cache, with the Hub played by the test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import HFValidationError, HTTPError

import clapkit
from clapkit.errors import CheckpointError, ClapkitError
from clapkit.model import AudioTextModel
from clapkit.models import hub

REFUSALS = {
    "wrong": OSError("401 Unauthorized\nmore lines"),
    "no network": HTTPError("Name or service not known"),
    "silence": HTTPError(""),
    "bad name": HFValidationError("Repo id must be in the form 'repo_name'"),
}
"""What the Hub's library raises, by the token given."""


class FakeHub:
    """Keeps uploaded folders in memory."""

    uploads: ClassVar[dict[str, dict[str, bytes]]] = {}

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, **_: Any) -> str:
        if self.token in REFUSALS:
            raise REFUSALS[self.token]
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


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("wrong", "401 Unauthorized"),
        ("no network", "Name or service not known"),
        ("silence", "HTTPError"),
        ("bad name", "Repo id must be in the form 'repo_name'"),
    ],
)
def test_a_refused_upload_is_one_line(token: str, reason: str, tiny_model: AudioTextModel) -> None:
    with pytest.raises(ClapkitError, match=re.escape(f"me/mine: could not be uploaded ({reason})")) as error:
        tiny_model.push_to_hub("me/mine", token=token)
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


@pytest.mark.parametrize("file", [None, "c.pth"])
@pytest.mark.parametrize("error", [HTTPError("proxy"), OSError("no route"), HFValidationError("bad id")])
def test_a_hub_out_of_reach_is_one_line(error: Exception, file: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match="the Hub cannot be reached") as refused:
        hub.fetch_checkpoint("a/b", file)
    assert "\n" not in str(refused.value)


def test_old_weights_are_asked_for_only_where_there_is_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def download(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        if not local_files_only:
            asked.append(allow_patterns)
            (tmp_path / hub.OLD_WEIGHTS).write_bytes(b"x" if hub.OLD_WEIGHTS in allow_patterns else b"")
        if not asked or hub.OLD_WEIGHTS not in asked[-1]:
            (tmp_path / hub.OLD_WEIGHTS).unlink(missing_ok=True)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.fetch_checkpoint("a/b", None) == tmp_path
    assert asked == [hub.CHECKPOINT_FILES, [*hub.CHECKPOINT_FILES, hub.OLD_WEIGHTS]]


def test_without_download_only_the_cache_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, local_files_only: bool, **__: Any) -> str:
        assert local_files_only
        raise OSError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"a/b/c\.pth: not in the Hub's cache"):
        hub.fetch_checkpoint("a/b", "c.pth", download=False)
