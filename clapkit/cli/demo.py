"""``clapkit demo``: everything clapkit does, on synthetic sounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clapkit.cli.output import note, print_scores, typed_command
from clapkit.cli.train import describe_metrics

if TYPE_CHECKING:
    import pandas as pd

    from clapkit.model import AudioTextModel

TEST_FOLD = 1
SHOWN_CLASS = "dog barking"
FREE_LABELS = ["a barking dog", "someone honks in traffic", "a police siren", "music in the street"]

SHIPPED_LABELS = ["dog barking", "siren", "rain", "footsteps"]

NEXT_STEPS = """\
Your own sounds, with the model that ships:
  clapkit classify my.wav
  clapkit zeroshot --labels "dog barking,siren" my.wav
  clapkit index my_sounds/ --output my_index
  clapkit search "a dog barking" --index my_index
A model of your own, on real sounds (UrbanSound8K, 6 GB, non-commercial licence):
  clapkit train --dataset us8k --download            # or --root DIR if you have it
  clapkit classify my.wav --checkpoint runs/us8k"""


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("clapkit-demo"),
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Try everything on made-up city sounds: no data, no network, no GPU, about two minutes.

    Args:
        output: folder for the sounds, the checkpoint, the index and the picture.
        seed: of the sounds and of the training.
        device: auto, cpu or cuda.
    """
    from clapkit.config import load_config, preset
    from clapkit.data.datasets import load_manifest
    from clapkit.data.synthetic import write_synthetic_us8k

    print("1. Sounds: a small SYNTHETIC city-sound set, made by clapkit, in UrbanSound8K's layout")
    root = write_synthetic_us8k(output / "UrbanSound8K", seed=seed)
    config = load_config([preset("synthetic")], [f"train.seed={seed}"])
    manifest = load_manifest("synthetic", root)

    from clapkit.device import choose_device, describe_device
    from clapkit.training.plan import plan_run
    from clapkit.training.run import train_and_test

    run = plan_run(config, manifest, output / "checkpoint", test_fold=TEST_FOLD, command=typed_command())
    print(f"   {manifest.note}\n   {run.split.note}")

    chosen = choose_device(device)
    print(f"2. Training a CLAP on them: {config.encoder.name} + {config.text.name}, device {describe_device(chosen)}")
    model = train_and_test(run, device=chosen, overwrite=True, report=note)
    for line in describe_metrics(model.checkpoint.metrics):
        print(f"   {line}")
    _print_paraphrases(model, run.split.test)
    _show_one_clip(model, run.split.test, output)
    _show_search(model, root / "audio" / f"fold{TEST_FOLD}", run.split.test, output / "index")
    print("These sounds are synthetic: the figures above say that clapkit works, not how well it hears.\n")
    _show_shipped_model(device)
    print(f"\n{NEXT_STEPS}")


def _show_shipped_model(device: str) -> None:
    from clapkit.model import DEFAULT_CHECKPOINT, load
    from clapkit.resources import example_clip

    model = load(DEFAULT_CHECKPOINT, device=device)
    print(
        f"7. The model that ships, '{DEFAULT_CHECKPOINT}', learned from real recordings of {len(model.labels)} sounds"
    )
    clip = example_clip()
    print_scores(f"   clapkit classify {clip.name}    (the example clip)", model.classify(clip, top_k=3))
    scores = model.zeroshot(clip, SHIPPED_LABELS)
    print_scores(f'   clapkit zeroshot --labels "{",".join(SHIPPED_LABELS)}"', scores)


def _print_paraphrases(model: AudioTextModel, test: pd.DataFrame) -> None:
    from clapkit.data.prompts import load_descriptions
    from clapkit.evaluation.paraphrases import classes_found

    phrases = {texts.label: texts.held_out for texts in load_descriptions("us8k").values()}
    found = classes_found(model, test, phrases)
    example = phrases[SHOWN_CLASS][0]
    print(f"   words never trained on, such as '{example}': {sum(found.values())} of {len(found)} classes ranked first")


def _show_one_clip(model: AudioTextModel, test: pd.DataFrame, output: Path) -> None:
    from clapkit.audio.picture import log_mel_decibels
    from clapkit.evaluation.plots import plot_clip

    clip = test.loc[test["label"] == SHOWN_CLASS, "path"].iloc[0]
    shown = f"{os.path.relpath(clip)} --checkpoint {output / 'checkpoint'}"
    print_scores(f"3. clapkit classify {shown}", model.classify(clip, top_k=3))
    scores = model.zeroshot(clip, FREE_LABELS)
    print_scores(f'4. clapkit zeroshot --labels "{",".join(FREE_LABELS)}" {shown}', scores)
    waveform, picture = model.load_waveform(clip), output / "clip.png"
    bars = [(score.label, score.score) for score in scores]
    audio = model.config.audio
    plot_clip(waveform[0], log_mel_decibels(waveform, audio), audio, f"synthetic {SHOWN_CLASS}", picture, bars)
    print(f"5. Picture of this clip: {picture}")


def _show_search(model: AudioTextModel, sounds: Path, test: pd.DataFrame, folder: Path) -> None:
    from clapkit.search.index import AudioIndex

    index = AudioIndex.build(model, sounds)
    index.save(folder, overwrite=True)
    label_of = {str(Path(path).resolve()): label for path, label in zip(test["path"], test["label"], strict=True)}
    print(f'6. clapkit search "a police siren" --index {folder}    ({index.n_files} unseen clips)')
    for hit in index.search("a police siren", k=3):
        span, name = f"{hit.start_s:.1f}-{hit.end_s:.1f} s", Path(hit.path).name
        print(f"   {hit.score:+.3f}  {span}  {name}  (is: {label_of[hit.path]})")
