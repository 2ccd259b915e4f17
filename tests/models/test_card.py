"""The page beside a checkpoint: front matter for the Hub, and what a reader must know."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

import clapkit
from clapkit.model import AudioTextModel
from clapkit.models.card import MOST_LABELS, model_card
from clapkit.models.checkpoint import Checkpoint


@pytest.fixture
def checkpoint(tiny_model: AudioTextModel) -> Checkpoint:
    return copy(tiny_model.checkpoint)


def front_of(card: str) -> dict[str, Any]:
    before, front, _ = card.split("---\n", 2)
    assert before == ""
    return yaml.safe_load(front)


def test_labels_preprocessing_figures_and_licence_are_told(checkpoint: Checkpoint) -> None:
    checkpoint.training = checkpoint.training | {"licence": "CC BY-NC 4.0"}
    card = model_card(checkpoint, "tiny")
    assert front_of(card) == {
        "library_name": "clapkit", "license": "cc-by-nc-4.0", "pipeline_tag": "zero-shot-audio-classification",
        "tags": ["clap", "audio", "contrastive"],
    }  # fmt: skip
    accuracy = checkpoint.metrics["head"]["accuracy"]
    for part in (
        "# tiny\n", "rescnn hears, bert-small reads, 32 dimensions", "| sample_rate | 16000 |", "| window_s | 1.0 |",
        "| dataset | folder |", f"| head: accuracy | {accuracy:.3f} |", "high, low, middle", "Weights: CC BY-NC 4.0.",
        "clapkit.load(",
    ):  # fmt: skip
        assert part in card, part
    assert "fused_s" not in card  # what is not used is not shown


@pytest.mark.parametrize(
    ("licence", "name"),
    [
        ("MS-PL", "ms-pl"),
        ("Apache-2.0 (of the published weights)", "apache-2.0"),
        ("for my friends", "other"),
        (None, "other"),
    ],
)
def test_licences_have_the_names_that_the_hub_knows(licence: str | None, name: str, checkpoint: Checkpoint) -> None:
    checkpoint.training = {} if licence is None else {"licence": licence}
    assert front_of(model_card(checkpoint, "tiny"))["license"] == name


def test_many_labels_are_cut_and_none_is_said(checkpoint: Checkpoint) -> None:
    checkpoint.labels = [f"sound {number}" for number in range(MOST_LABELS + 5)]
    card = model_card(checkpoint, "tiny")
    assert f"sound {MOST_LABELS - 1}, and 5 more" in card
    checkpoint.labels, checkpoint.metrics = [], {}
    card = model_card(checkpoint, "tiny")
    assert "give labels in free words" in card
    assert "## Figures" not in card


def test_a_published_models_card_says_what_it_heard(clap_folder: Path) -> None:
    card = model_card(clapkit.load(clap_folder, device="cpu").checkpoint, "mine")
    assert front_of(card)["license"] == "apache-2.0"
    for part in ("| saw_esc50 | in part", "| saw_us8k | in part", "| trained_on | AudioSet", "| padding | repeatpad |"):
        assert part in card


def test_the_card_is_saved_and_replaced_with_the_checkpoint(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "mine")
    assert front_of((tmp_path / "mine" / "README.md").read_text(encoding="utf-8"))["library_name"] == "clapkit"
    (tmp_path / "mine" / "README.md").write_text("old")
    tiny_model.save_pretrained(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "README.md").read_text(encoding="utf-8").startswith("---\n")
