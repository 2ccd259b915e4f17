"""Settings: defaults, strict YAML, overrides, and errors that fit in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from clapkit.config import Config, load_config, preset, save_config
from clapkit.errors import ConfigError

SHIPPED = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def error_of(files: list[Path] | None = None, overrides: list[str] | None = None) -> str:
    """The message of the ConfigError, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        load_config(files or [], overrides or [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_given_means_the_defaults() -> None:
    config = load_config()
    assert config == Config()
    assert (config.audio.sample_rate, config.audio.window_s, config.audio.n_mels) == (22_050, 4.0, 64)
    assert (config.encoder.name, config.text.name, config.model.embed_dim) == ("rescnn", "minilm", 256)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3


def test_a_file_changes_only_what_it_states(tmp_path: Path) -> None:
    config = load_config([write(tmp_path / "a.yaml", "train:\n  epochs: 3\n")])
    assert config.train.epochs == 3
    assert config.train.model_copy(update={"epochs": Config().train.epochs}) == Config().train
    assert config.audio == Config().audio


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_config([write(tmp_path / "a.yaml", "# only a comment\n")]) == Config()


def test_later_files_win_and_overrides_win_over_files(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "train: {epochs: 3, batch_size: 4, seed: 5}")
    second = write(tmp_path / "second.yaml", "train: {epochs: 6, batch_size: 7}")
    train = load_config([first, second], ["train.epochs=8", "train.epochs=9"]).train
    assert (train.epochs, train.batch_size, train.seed) == (9, 7, 5)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("model.embed_dim=64", "model", "embed_dim", 64),
        ("train.learning_rate=1e-3", "train", "learning_rate", 0.001),
        ("model.head=false", "model", "head", False),
        ("audio.top_db=null", "audio", "top_db", None),
        ("text.name=org/some-model", "text", "name", "org/some-model"),
        ("train={epochs: 5}", "train", "epochs", 5),
    ],
)
def test_overrides_are_read_as_yaml(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(load_config([], [override]), section), key) == value


def test_unknown_key_in_a_file_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    file = write(tmp_path / "typo.yaml", "audio: {sample_rat: 16000}")
    assert error_of([file]) == f"{file}: unknown key 'audio.sample_rat'; did you mean 'audio.sample_rate'?"


def test_unknown_key_in_an_override_names_it_and_the_nearest_key() -> None:
    message = error_of([], ["train.epoch=3"])
    assert message == "--set train.epoch=3: unknown key 'train.epoch'; did you mean 'train.epochs'?"


def test_a_key_that_forgot_its_section_is_led_home(tmp_path: Path) -> None:
    assert error_of([write(tmp_path / "a.yaml", "batch_size: 3")]).endswith("did you mean 'train.batch_size'?")


def test_a_key_like_none_is_answered_with_the_sections(tmp_path: Path) -> None:
    message = error_of([write(tmp_path / "a.yaml", "zzzz: 3")])
    assert "unknown key 'zzzz'" in message
    assert all(section in message for section in Config.model_fields)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs=0", "greater than or equal to 1"),
        ("train.label_smoothing=1", "less than 1"),
        ("audio.n_channels=3", "1 or 2"),
        ("audio.window_s=-1", "greater than 0"),
        ("encoder.name=resnet", "'rescnn', 'cnn14', 'cnn4', 'htsat' or 'resnet18'"),
        ("train.epochs=many", "valid integer"),
    ],
)
def test_a_value_out_of_range_says_key_value_and_range(override: str, expected: str) -> None:
    key, _, value = override.partition("=")
    message = error_of([], [override])
    assert message.startswith(f"--set {override}: {key}=")
    assert value in message.removeprefix(f"--set {override}")
    assert expected in message


def test_a_value_out_of_range_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "range.yaml", "train: {batch_size: 1}")
    assert error_of([file]).startswith(f"{file}: train.batch_size=1: ")


@pytest.mark.parametrize("override", ["train.learning_rate=.inf", "audio.mean_db=.nan", "train.epochs=true"])
def test_a_number_must_be_a_finite_number(override: str) -> None:
    assert override.partition("=")[0] in error_of([], [override])


def test_f_max_above_half_the_sample_rate_is_refused() -> None:
    message = error_of([], ["audio.sample_rate=16000", "audio.f_max_hz=9000"])
    assert "f_max_hz=9000" in message
    assert "half the sample rate" in message


def test_f_max_below_f_min_is_refused() -> None:
    assert "f_min_hz=50" in error_of([], ["audio.f_max_hz=40"])


def test_f_min_above_half_the_sample_rate_is_refused() -> None:
    assert "f_min_hz" in error_of([], ["audio.f_min_hz=20000"])


def test_a_window_shorter_than_the_fourier_window_is_refused() -> None:
    assert "n_fft" in error_of([], ["audio.window_s=0.01"])


def test_settings_that_only_fit_together_may_come_from_two_overrides() -> None:
    audio = load_config([], ["audio.sample_rate=48000", "audio.f_max_hz=14000"]).audio
    assert (audio.sample_rate, audio.f_max_hz) == (48_000, 14_000)


def test_settings_that_only_fit_together_may_come_from_a_file_and_an_override(tmp_path: Path) -> None:
    file = write(tmp_path / "rate.yaml", "audio: {sample_rate: 48000}")
    assert load_config([file], ["audio.f_max_hz=14000"]).audio.f_max_hz == 14_000


@pytest.mark.parametrize("override", ["train.epochs", "train..epochs=3", "=3", ".epochs=3"])
def test_an_override_of_another_form_is_refused_with_an_example(override: str) -> None:
    assert error_of([], [override]) == f"--set {override}: expected section.key=value, such as model.embed_dim=256."


def test_an_override_that_is_not_yaml_is_refused() -> None:
    assert error_of([], ["train.epochs=["]) == "--set train.epochs=[: '[' is not a YAML value."


@pytest.mark.parametrize("name", ["none.yaml", "a.yaml/deeper.yaml"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.yaml", "")
    assert error_of([tmp_path / name]).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("content", [b"a: [1\nb: }", b"\xff\xfe\x00\x01", b"RIFF\x00\x01WAVE"])
def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    assert error_of([file]).startswith(f"{file}: not readable as YAML")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert error_of([tmp_path]).startswith(f"{tmp_path}: not readable as YAML")


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("hello", "str"), ("3", "int")])
def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    assert error_of([write(tmp_path / "a.yaml", text)]).endswith(f"found a {kind}.")


def test_a_section_without_content_is_refused(tmp_path: Path) -> None:
    assert "audio=None" in error_of([write(tmp_path / "a.yaml", "audio:\n")])


def test_a_section_stated_twice_is_refused(tmp_path: Path) -> None:
    assert "train" in error_of([write(tmp_path / "a.yaml", "train: {epochs: 3}\ntrain: {batch_size: 4}\n")])


def test_saving_and_loading_gives_the_same_settings(tmp_path: Path) -> None:
    overrides = ["audio.f_max_hz=8000", "audio.top_db=80", "text.trainable=false", "train.learning_rate=3.5e-4"]
    config = load_config([], overrides)
    save_config(config, tmp_path / "config.yaml")
    assert load_config([tmp_path / "config.yaml"]) == config


def test_a_saved_file_states_the_defaults_too(tmp_path: Path) -> None:
    save_config(Config(), tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == Config().model_dump(mode="json")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_settings_load(file: Path) -> None:
    assert preset(file.stem).read_text() == file.read_text()
    load_config([file])


def test_every_dataset_has_shipped_settings() -> None:
    from clapkit.data.datasets import NAMES

    assert set(NAMES) <= {file.stem for file in SHIPPED}


def test_a_base_is_read_first_and_the_file_beside_it_wins(tmp_path: Path) -> None:
    write(tmp_path / "_base.yaml", "train: {epochs: 3, batch_size: 4}\naudio: {n_mels: 32}")
    file = write(tmp_path / "a.yaml", "base: _base.yaml\ntrain: {epochs: 5}")
    config = load_config([file], ["audio.n_fft=512"])
    assert (config.train.epochs, config.train.batch_size, config.audio.n_mels, config.audio.n_fft) == (5, 4, 32, 512)


def test_a_base_may_have_a_base_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "deeper" / "first.yaml", "train: {epochs: 3, batch_size: 4, seed: 5}")
    write(tmp_path / "deeper" / "second.yaml", "base: first.yaml\ntrain: {batch_size: 6}")
    train = load_config([write(tmp_path / "third.yaml", "base: deeper/second.yaml\ntrain: {seed: 7}")]).train
    assert (train.epochs, train.batch_size, train.seed) == (3, 6, 7)


def test_a_mistake_in_a_base_names_the_base(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "train: {epoch: 3}")
    assert error_of([write(tmp_path / "a.yaml", "base: base.yaml")]).startswith(f"{base}: unknown key 'train.epoch'")


@pytest.mark.parametrize("base", ["a.yaml", "./a.yaml", "3", "[b.yaml]", "{train: {epochs: 3}}"])
def test_a_base_that_is_no_other_file_is_refused(tmp_path: Path, base: str) -> None:
    file = write(tmp_path / "a.yaml", f"base: {base}")
    assert error_of([file]).startswith(f"{file}: base=")


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "base: none.yaml")
    assert error_of([file]).startswith(f"{tmp_path / 'none.yaml'}: no such file")


def test_bases_that_name_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "b.yaml", "base: a.yaml")
    assert "base" in error_of([write(tmp_path / "a.yaml", "base: b.yaml")])


def test_a_base_cannot_be_an_override() -> None:
    assert "unknown key 'base'" in error_of([], ["base=a.yaml"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.optimizer=lion", "'adamw', 'adam', 'rmsprop' or 'sgd'"),
        ("train.schedule=step", "'one_cycle', 'cosine', 'plateau' or 'constant'"),
        ("train.anneal=flat", "'cosine' or 'linear'"),
        ("train.contrastive=triplet", "'softmax' or 'sigmoid'"),
        ("train.momentum=1", "less than 1"),
        ("train.ema=1", "less than 1"),
        ("train.ema=-0.1", "greater than or equal to 0"),
        ("train.accumulate=0", "greater than or equal to 1"),
        ("train.patience=-1", "greater than or equal to 0"),
        ("train.plateau_factor=1", "less than 1"),
        ("train.validation_part=0", "greater than 0"),
        ("train.save_every_s=0", "greater than 0"),
        ("train.clip_norm=0", "greater than 0"),
        ("augment.background=1.5", "less than or equal to 1"),
        ("augment.eq_db=-1", "greater than or equal to 0"),
        ("experiment.reported=71", "less than or equal to 1"),
    ],
)
def test_new_settings_say_what_they_take(override: str, expected: str) -> None:
    message = error_of([], [override])
    assert override.partition("=")[0] in message
    assert expected in message


@pytest.mark.parametrize("value", ["5", "[5]", "[5, 10, 20]", "[low, high]"])
def test_the_background_snr_is_a_range(value: str) -> None:
    assert "augment.background_snr_db" in error_of([], [f"augment.background_snr_db={value}"])
    assert load_config([], ["augment.background_snr_db=[3, 6]"]).augment.background_snr_db == (3.0, 6.0)


def test_patience_and_plateau_watch_validation() -> None:
    watched = [load_config([], sets).train.watches_validation for sets in (
        [], ["train.patience=1"], ["train.schedule=plateau"], ["train.schedule=cosine"],
    )]  # fmt: skip
    assert watched == [False, True, True, False]


def test_a_saved_range_comes_back(tmp_path: Path) -> None:
    config = load_config([], ["augment.background_snr_db=[3, 6]", "experiment.reported=0.71", "train.clip_norm=null"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config([tmp_path / "config.yaml"]) == config
