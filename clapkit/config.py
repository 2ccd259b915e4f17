"""Every setting with its unit and default, stated once; strict YAML in and out; ``a.b=value`` overrides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from clapkit.errors import ConfigError
from clapkit.resources import shipped_folder

NEW_TOWERS = ("bert-small", "gpt2-small")
"""Text towers that start from scratch."""
NEW_DECODER = "gpt2-small"
"""The decoder of captions that starts from scratch."""
NO_TEXT_TOWER = "none"
"""Name of the text tower of a model that reads no text, such as clapcap, which only writes it."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[info.field_name].annotation):
            raise ValueError(f"found {str(value).lower()}, expected a number or text")
        return value


class AudioConfig(Section):
    """From a file to a log-mel picture. These settings belong to the model and travel in its checkpoint."""

    sample_rate: int = Field(22_050, ge=1_000, description="Hz")
    n_channels: Literal[1, 2] = Field(1, description="1: every sound is mixed down; 2: stereo, mono is doubled")
    window_s: float = Field(4.0, gt=0, le=60, description="seconds; every clip is padded to it or cut into several")
    n_fft: int = Field(1024, ge=32, description="samples in one Fourier window")
    hop_length: int = Field(320, ge=1, description="samples between two frames")
    n_mels: int = Field(64, ge=8)
    f_min_hz: float = Field(50.0, ge=0)
    f_max_hz: float | None = Field(None, gt=0, description="None: half the sample rate")
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney"] | None = "slaney"
    filter_rate_hz: int | None = Field(
        None, ge=1_000, description="Hz that the mel filters are made for; None: sample_rate (msclap-2023 differs)"
    )
    padding: Literal["zero", "repeat", "repeatpad"] = Field(
        "zero", description="of short clips: zeros kept out of the result; repeated and cut; whole repeats, then zeros"
    )
    fused_s: float | None = Field(
        None, gt=0, le=600, description="seconds that LAION's fused tower hears as one picture; None: not that tower"
    )
    sixteen_bits: bool = Field(
        False, description="samples are cut to 16 bits first, towards zero, as LAION's code does"
    )
    top_db: float | None = Field(None, gt=0, description="dB below a window's maximum that are kept; None: all")
    level: Literal["absolute", "relative", "flat"] = Field(
        "absolute", description="taken out of each window: nothing; its mean dB; each mel bin's own mean dB"
    )
    mean_db: float = Field(-30.0, description="dB; fixed normalisation (near UrbanSound8K's mean), never of a batch")
    std_db: float = Field(20.0, gt=0, description="dB")

    @model_validator(mode="after")
    def _settings_fit_together(self) -> AudioConfig:
        nyquist_hz = (self.filter_rate_hz or self.sample_rate) / 2
        top_hz = nyquist_hz if self.f_max_hz is None else self.f_max_hz
        if not self.f_min_hz < top_hz <= nyquist_hz:
            raise ValueError(
                f"f_min_hz={self.f_min_hz:g} < f_max_hz={top_hz:g} <= half the sample rate ({nyquist_hz:g}) must hold"
            )
        if self.window_s * self.sample_rate < self.n_fft:
            raise ValueError(f"window_s={self.window_s:g} is shorter than n_fft={self.n_fft} samples")
        if self.fused_s is not None and not (self.fused_s > self.window_s and self.n_channels == 1):
            raise ValueError(f"fused_s={self.fused_s:g} must exceed window_s={self.window_s:g}, with n_channels=1")
        return self


class EncoderConfig(Section):
    """The audio tower."""

    name: Literal["rescnn", "cnn14", "cnn4", "htsat", "resnet18"] = "rescnn"
    width: int = Field(24, ge=4, description="rescnn, htsat: channels of the first stage; the last has 8 times as many")
    depths: tuple[PositiveInt, ...] = Field(
        (2, 2, 6, 2), min_length=1, max_length=4, description="htsat: blocks of each stage"
    )
    n_heads: tuple[PositiveInt, ...] = Field(
        (4, 8, 16, 32), min_length=1, max_length=4, description="htsat: attention heads of each stage"
    )
    dropout: float = Field(0.2, ge=0, lt=1)
    branches: int = Field(
        1,
        ge=1,
        le=16,
        description="such towers side by side, each with projections of its own; clapkit join makes them",
    )
    without_mean: bool = Field(
        False, description="rescnn: also sees the picture with each mel bin's mean over the window taken out"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> EncoderConfig:
        if self.name != "htsat":
            return self
        widths = [self.width * 2**stage for stage in range(len(self.depths))]
        if len(self.n_heads) != len(self.depths) or any(w % n for w, n in zip(widths, self.n_heads, strict=True)):
            raise ValueError(f"n_heads={self.n_heads} must divide htsat's stages of {widths} channels")
        return self


class TextConfig(Section):
    """The text tower."""

    name: str = Field("minilm", description="minilm, bert-small, gpt2-small, a Hub id, a folder, or none")
    pooling: Literal["auto", "cls", "mean", "last", "pooler", "projection", "msclap_gpt2"] = Field(
        "auto", description="auto: mean for MiniLM, last for GPT-2, projection for CLIP; pooler as LAION reads RoBERTa"
    )
    context_length: int = Field(64, ge=4, description="tokens kept of one text")
    trainable: bool | None = Field(None, description="None: a pretrained tower is frozen, a new one is trained")
    hidden_size: int = Field(128, ge=8, description="new towers only (bert-small, gpt2-small)")
    n_layers: int = Field(2, ge=1, description="new towers only")
    dropout: float = Field(0.1, ge=0, lt=1, description="new towers only")
    vocab_size: int = Field(
        2000, ge=100, description="new towers only: at most this many word pieces, single letters always"
    )


class ModelConfig(Section):
    """The shared space."""

    embed_dim: int = Field(256, ge=2)
    projection: Literal["residual", "mlp", "linear"] = Field(
        "residual", description="from a tower to the shared space, as in msclap, in LAION's CLAP, or a single matrix"
    )
    text_projection: Literal["same", "none"] = Field(
        "same", description="none: the text tower's vectors are the shared space, as in Wav2CLIP"
    )
    text_logit_scale: bool = Field(False, description="a temperature of its own from text to sound, as in LAION's CLAP")
    head: bool = Field(True, description="a linear classifier beside the shared space")
    multilabel: bool = Field(False, description="each of its labels is a yes or no; set for clips with several labels")
    projection_dropout: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.07, gt=0, description="initial temperature; logit_scale starts at ln(1/temperature)")


class AugmentConfig(Section):
    """Training-time randomness, on log-mel pictures; none of it is active when a sound is embedded."""

    time_shift: float = Field(0.5, ge=0, le=1, description="largest circular shift, as a part of the clip")
    gain_db: float = Field(3.0, ge=0, description="largest change of level up or down")
    eq_db: float = Field(0.0, ge=0, description="largest change of level at any frequency, as a smooth random curve")
    background: float = Field(0.0, ge=0, le=1, description="probability that another sound is laid under a clip")
    background_snr_db: tuple[float, float] = Field((5.0, 20.0), description="how far below the clip it lies")
    background_folder: str | None = Field(None, description="its sounds; None: other clips of the batch")
    mixup: float = Field(0.3, ge=0, le=1, description="probability that a clip is mixed with another of its batch")
    mixup_alpha: float = Field(0.4, gt=0, description="Beta(alpha, alpha) draws the share of the other clip")
    low_pass: float = Field(0.0, ge=0, le=1, description="probability that what lies above some frequency is cut off")
    silence: float = Field(0.0, ge=0, lt=1, description="probability that silence, which is no class, replaces a clip")
    short: float = Field(0.0, ge=0, le=1, description="probability that only 0.3 to 2 s of a clip are heard")
    n_masks: int = Field(1, ge=0, description="SpecAugment masks along each axis")
    max_freq_mask: float = Field(0.15, ge=0, le=1, description="widest frequency mask, as a part of the mel bins")
    max_time_mask: float = Field(0.15, ge=0, le=1, description="widest time mask, as a part of the frames")


class TrainConfig(Section):
    """Optimisation."""

    start_from: str | None = Field(
        None, description="checkpoint whose towers are trained further: a folder, file or published name"
    )
    teacher: str | None = Field(
        None, description="checkpoint of the same labels and preprocessing to learn from, such as clapkit join makes"
    )
    teacher_part: float = Field(0.7, ge=0, le=1, description="part of the labels that a teacher's beliefs replace")
    freeze_audio: bool = Field(False, description="the audio tower stays as it is; for a training with start_from")
    epochs: int = Field(24, ge=1)
    batch_size: int = Field(16, ge=2, description="clips that are contrasted with one another, over all processes")
    balance: float = Field(0.0, ge=0, le=1, description="0: clips count alike; 1: recordings do; 0.5: in between")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one optimizer step")
    optimizer: Literal["adamw", "adam", "rmsprop", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    learning_rate: float = Field(2e-3, gt=0, description="peak of the schedule")
    weight_decay: float = Field(0.02, ge=0)
    schedule: Literal["one_cycle", "cosine", "plateau", "constant"] = Field(
        "one_cycle", description="cosine: linear warm-up, cosine fall; plateau: falls when validation stops improving"
    )
    anneal: Literal["cosine", "linear"] = Field("cosine", description="shape of one_cycle's two halves")
    warmup: float = Field(0.15, ge=0, lt=1, description="part of the training before the peak (one_cycle, cosine)")
    plateau_patience: int = Field(3, ge=0, description="epochs without improvement before the rate falls")
    plateau_factor: float = Field(0.3, gt=0, lt=1, description="what the rate is then multiplied by")
    patience: int = Field(0, ge=0, description="stop after so many epochs without improvement; 0: train them all")
    validation_part: float = Field(
        0.1, gt=0, lt=1, description="of the training recordings, watched by patience and plateau; else all train"
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay per step of averaged weights, which are then scored; 0: off")
    contrastive: Literal["softmax", "sigmoid"] = Field("softmax", description="CLIP's loss, or SigLIP's")
    contrastive_weight: float = Field(1.0, ge=0)
    all_labels: bool = Field(
        False, description="a batch is contrasted with a text of every label, not of its clips alone"
    )
    head_weight: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    clip_norm: float | None = Field(5.0, gt=0, description="largest gradient norm; None: no clipping")
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    compile: bool = Field(False, description="torch.compile the audio tower (GPU)")
    tensorboard: bool = Field(False, description="write TensorBoard events beside history.csv")
    save_every_s: float = Field(60.0, gt=0, description="seconds of training that a kill can cost at most")
    seed: int = Field(0, ge=0, lt=2**31)
    test_part: float = Field(
        0.2, gt=0, lt=1, description="of the recordings kept for the test where there are no folds"
    )

    @property
    def watches_validation(self) -> bool:
        """Whether training looks at validation clips."""
        return self.patience > 0 or self.schedule == "plateau"


class CaptionConfig(Section):
    """What ``clapkit train --task caption`` makes: a mapper from sounds to prefixes, in front of a decoder."""

    decoder: str | None = Field(
        None, description="gpt2, another Hub id, a folder, gpt2-small; None: the checkpoint's own, or else gpt2"
    )
    prefix_length: int = Field(40, ge=1, description="vectors in front of a caption")
    clip_length: int = Field(40, ge=1, description="vectors that a sound becomes inside the mapper")
    n_layers: int = Field(8, ge=1, description="of the mapper")
    n_heads: int = Field(8, ge=1, description="of the mapper, and of a new decoder")
    most_tokens: int = Field(67, ge=2, description="of one caption, its end included")
    hidden_size: int = Field(128, ge=8, description="new decoder only (gpt2-small)")
    decoder_layers: int = Field(2, ge=1, description="new decoder only")
    vocab_size: int = Field(2000, ge=300, description="new decoder only: at most this many pieces, single bytes always")

    @model_validator(mode="after")
    def _heads_fit(self) -> CaptionConfig:
        if self.decoder == NEW_DECODER and self.hidden_size % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} must divide hidden_size={self.hidden_size}")
        return self


class ExperimentConfig(Section):
    """What ``clapkit sweep`` needs to know of a file in ``configs/thesis/``; training ignores it."""

    title: str = ""
    dataset: str = ""
    reported: float | None = Field(None, ge=0, le=1, description="accuracy that the thesis reported")


class Config(Section):
    """All settings of one training run."""

    audio: AudioConfig = AudioConfig()
    encoder: EncoderConfig = EncoderConfig()
    text: TextConfig = TextConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    caption: CaptionConfig = CaptionConfig()
    experiment: ExperimentConfig = ExperimentConfig()


def load_config(files: Iterable[str | Path] = (), overrides: Iterable[str] = ()) -> Config:
    """Read settings: the defaults, then each YAML file, then each override.

    Args:
        files: YAML files that state only differences from the defaults, or from the file beside them that their
            ``base`` names; later ones win.
        overrides: ``section.key=value`` strings; the value is read as YAML.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown (the nearest valid one is named),
            or a value is out of range.
    """
    origins = [origin for file in files for origin in _with_base(Path(file))]
    origins += [(f"--set {text}", _override_tree(text)) for text in overrides]
    merged: dict[str, Any] = {}
    for origin, tree in origins:
        if problem := next((each for each in _problems(tree) if each["type"] != "value_error"), None):
            raise ConfigError(f"{origin}: {_explain(problem)}")
        merged = _merge(merged, tree)
    for problem in _problems(merged):  # what only fits or fails together
        raise ConfigError(f"{', '.join(origin for origin, _ in origins)}: {_explain(problem)}")
    return Config.model_validate(merged)


def preset(name: str) -> Path:
    """The shipped file ``configs/<name>.yaml``."""
    return shipped_folder("configs") / f"{name}.yaml"


def save_config(config: Config, file: Path) -> None:
    """Write every setting, defaults included."""
    file.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; an empty file is an empty mapping."""
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), _StrictLoader)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{file}: no such file; give an existing YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{file}: not readable as YAML ({' '.join(str(error).split())}).") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected 'section: {{key: value}}', found a {type(tree).__name__}.")
    return tree


def _with_base(file: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """A file's settings, after those of the file that its ``base`` names."""
    tree = read_yaml(file)
    base = tree.pop("base", None)
    if base is None:
        return [(str(file), tree)]
    above = (*above, file.resolve())
    if not isinstance(base, str) or (file.parent / base).resolve() in above:
        raise ConfigError(
            f"{file}: base={base!r}: expected the name of another YAML file, which does not lead back here."
        )
    return [*_with_base(file.parent / base, above), (str(file), tree)]


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is stated twice, of which PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if doubled := next((key for place, key in enumerate(keys) if key in keys[:place]), None):
            raise yaml.constructor.ConstructorError(None, None, f"'{doubled}' is stated twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _override_tree(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: expected section.key=value, such as model.embed_dim=256.")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: '{value}' is not a YAML value.") from None
    for key in reversed(keys):
        tree = {key: tree}
    return tree


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both_are_trees = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_are_trees else value
    return merged


def _problems(tree: Mapping[str, Any]) -> list[Any]:
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        return error.errors()
    return []


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path) or "a setting"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(dotted, _known_paths(), n=1, cutoff=0.5)
        return f"unknown key '{dotted}'" + (
            f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(Config.model_fields)}."
        )
    message = problem["msg"].removeprefix("Value error, ")
    return f"{dotted}={problem['input']!r}: {message}." if problem["type"] != "value_error" else f"{dotted}: {message}."


def _known_paths() -> list[str]:
    sections = Config.model_fields
    return list(sections) + [f"{s}.{key}" for s, field in sections.items() for key in field.annotation.model_fields]
