"""``clapkit train``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from clapkit import progress
from clapkit.cli.output import note, print_json, typed_command
from clapkit.errors import ClapkitError

if TYPE_CHECKING:
    from clapkit.model import AudioTextModel

Flag = Annotated[bool, Parameter(negative="")]


def train(
    *,
    dataset: str,
    task: Literal["clap", "caption"] = "clap",
    root: Path | None = None,
    weights: str | None = None,
    download: Flag = False,
    config: Path | None = None,
    start_from: Annotated[str | None, Parameter(name=["--start-from", "--checkpoint"])] = None,
    decoder: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    test_fold: int | None = None,
    folds: str | None = None,
    val_fold: int | None = None,
    split: Literal["official", "random"] = "official",
    hold_out_classes: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    output: Path | None = None,
    overwrite: Flag = False,
    resume: Flag = False,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Train a model, test it on sounds it never heard, and save a run folder, which is a checkpoint.

    Args:
        dataset: us8k, esc50 or fsd50k in their publishers' layouts, folder (a folder of class folders), csv (path and
            text), or synthetic; several with commas, of which the first one is tested and all are trained on.
        task: clap, or caption: what writes captions, behind the audio tower of a checkpoint; towers stay as they are.
        root: the dataset's folder, the CSV file, or the parent folder of several; left out, CLAPKIT_DATA and the
            cache are searched.
        weights: how often a clip of each dataset is drawn in an epoch, such as 1,0.5.
        download: fetch us8k or esc50 from its publisher when it is not on this machine.
        config: a YAML file with differences from the defaults, in place of configs/<dataset>.yaml (configs/caption.yaml
            for captions).
        start_from: checkpoint that is trained further, such as msclap-2023; same as --set train.start_from=...
        decoder: writes the captions: gpt2, another Hub id, a folder, or gpt2-small, a new one; same as
            --set caption.decoder=...
        set_: one setting, such as model.embed_dim=256; may be repeated.
        test_fold: official fold kept for the test; the dataset's usual one when left out; 0 keeps none.
        folds: all, or fold numbers such as 1,2,3: train and test once for each, and report mean and spread.
        val_fold: training fold that early stopping watches, in place of a part of the recordings.
        split: official (by fold, else by recording), or random, which leaks and is marked so.
        hold_out_classes: labels, or groups of ESC-50 such as animals, that are never trained on and tested by prompts.
        epochs: same as --set train.epochs=N.
        seed: same as --set train.seed=N.
        device: auto (a GPU when there is one), cpu or cuda.
        output: the run folder; runs/<dataset>, or runs/<dataset>-caption, when left out.
        overwrite: replace an existing run.
        resume: go on where a killed run was saved last.
        json: print the test figures as one JSON document.
    """
    from clapkit.config import load_config, preset
    from clapkit.data.datasets import check_name, load_datasets

    shortcuts = {
        "train.epochs": epochs, "train.seed": seed, "train.start_from": start_from, "caption.decoder": decoder
    }  # fmt: skip
    overrides = (set_ or []) + [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    names = dataset.split(",")
    output = output or Path("runs") / ("+".join(names) + ("-caption" if task == "caption" else ""))
    _check_options(folds, test_fold, split, names[0])
    _check_task(task, folds, hold_out_classes, decoder)
    usual = check_name(names[0])
    settings = load_config([config or preset("caption" if task == "caption" else usual)], overrides)
    manifest = load_datasets(names, root, weights, download=download)

    from clapkit.device import choose_device, describe_device  # PyTorch takes seconds to import
    from clapkit.training.folds import read_folds, train_folds
    from clapkit.training.plan import plan_run
    from clapkit.training.processes import is_main_process, leave_processes

    progress.show_progress(progress.is_visible() and is_main_process())
    chosen_device = choose_device(device)
    plan = {"kind": split, "val_fold": val_fold, "hold_out": hold_out_classes, "command": typed_command()}
    work = {"device": chosen_device, "overwrite": overwrite, "resume": resume, "report": note}
    note(manifest.note)
    note(f"device {describe_device(chosen_device)}")
    try:
        if folds is not None:
            make = lambda fold, folder: plan_run(settings, manifest, folder, test_fold=fold, **plan)  # noqa: E731
            figures = train_folds(make, read_folds(folds, manifest.folds), output, **work)
        else:
            run = plan_run(settings, manifest, output, test_fold=test_fold, **plan)
            note(run.split.note)
            figures = _train_for(task)(run, **work).checkpoint.metrics
            figures = figures if task == "clap" else {name: figures[name] for name in figures if name == task}
    finally:
        leave_processes()
    if not is_main_process():
        return
    if json:
        print_json({"folder" if folds else "checkpoint": str(output), "metrics": figures})
        return
    for line in describe_folds(figures) if folds else describe_metrics(figures):
        print(line)
    command = "caption" if task == "caption" else "classify"
    tried = "clapkit compare RUN RUN" if folds else f"clapkit {command} FILE --checkpoint {output}"
    print(f"saved {output}: look at {output / 'report.md'}; try: {tried}")


def _check_options(folds: str | None, test_fold: int | None, split: str, dataset: str) -> None:
    if folds is not None and dataset == "fsd50k":
        raise ClapkitError("--folds: FSD50K has no folds but train, val and eval; leave it out to test on eval.")
    if folds is not None and test_fold is not None:
        raise ClapkitError("--folds tests every fold and --test-fold one; give only one of them.")
    if split == "random" and (folds is not None or test_fold is not None):
        raise ClapkitError("--split random ignores folds; leave out --folds and --test-fold.")


def _check_task(task: str, folds: str | None, hold_out_classes: str | None, decoder: str | None) -> None:
    if task == "caption" and (folds is not None or hold_out_classes is not None):
        raise ClapkitError("--task caption: has one test and no classes; leave out --folds and --hold-out-classes.")
    if task != "caption" and decoder is not None:
        raise ClapkitError(f"--decoder {decoder}: writes captions; add --task caption.")


def _train_for(task: str) -> Callable[..., AudioTextModel]:
    if task == "caption":
        from clapkit.training.captions import train_captions

        return train_captions
    from clapkit.training.run import train_and_test

    return train_and_test


def describe_metrics(metrics: dict) -> list[str]:
    """One line for each task."""
    lines = []
    leaky = "  LEAKY: recordings of the test were trained on" if any(each["leaky"] for each in metrics.values()) else ""
    for task, name in (("head", "by the head"), ("zeroshot", "by prompts")):
        if task in metrics:
            figures = metrics[task]
            kind = "accuracy" if "accuracy" in figures else "map"
            shown = "mAP" if kind == "map" else kind
            lines.append(f"{shown} {name:<12} {figures[kind]:.3f}  on {figures['n_clips']} unseen clips{leaky}")
    if unheard := metrics.get("zeroshot", {}).get("generalised"):
        lines.append(
            f"classes never heard: {unheard['unseen_among_unseen']:.3f} among themselves; among all "
            f"{unheard['unseen']:.3f}, heard ones {unheard['seen']:.3f}, harmonic mean {unheard['harmonic_mean']:.3f}"
        )
    if "caption" in metrics:
        figures = metrics["caption"]
        lines.append(
            f"captions: loss per token {figures['loss_per_token']:.3f} (perplexity {figures['perplexity']:.1f})  "
            f"on {figures['n_clips']} unseen pairs{leaky}"
        )
    if "retrieval" in metrics:
        figures = metrics["retrieval"]
        lines.append(f"text finds sound: mAP@10 {figures['map_at_10']:.3f}, R@1 {figures['r_at_1']:.3f}{leaky}")
    return lines


def describe_folds(summary: dict) -> list[str]:
    """A line for each fold, then mean ± standard deviation, then the classes."""
    from clapkit.evaluation.folds import with_spread

    shown = [("head", "accuracy", "head"), ("zeroshot", "accuracy", "prompts"), ("head", "map", "head mAP")]
    shown += [("zeroshot", "map", "prompts mAP"), ("retrieval", "map_at_10", "mAP@10"), ("retrieval", "r_at_1", "R@1")]
    shown = [each for each in shown if each[1] in summary["mean"].get(each[0], {})]
    lines = []
    for fold, metrics in summary["folds"].items():
        n_clips = next(iter(metrics.values()))["n_clips"] if metrics else 0
        figures = "  ".join(f"{name} {metrics[task][figure]:.3f}" for task, figure, name in shown if task in metrics)
        lines.append(f"fold {fold:<3} {figures}  on {n_clips} unseen clips")
    means, stds = summary["mean"], summary["std"]
    spreads = [f"{name} {with_spread(means[task][figure], stds[task][figure])}" for task, figure, name in shown]
    lines.append(f"mean ± std over {len(summary['folds'])} folds:  " + "  ".join(spreads))
    for task, classes in summary["per_class"].items():
        if task == shown[0][0]:
            lines += [f"  {label:<20} {with_spread(each['mean'], each['std'])}" for label, each in classes.items()]
    if summary["leaky"]:
        lines.append("LEAKY: recordings of the test were trained on")
    return lines
