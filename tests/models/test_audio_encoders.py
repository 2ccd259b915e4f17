"""Audio towers: what lies behind a clip's end, beside it in the batch, or after it in the window never matters."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import ClapAudioConfig, ClapAudioModel, ResNetConfig, ResNetModel

from clapkit.audio.log_mel import mask_frames
from clapkit.config import AudioConfig, EncoderConfig, load_config
from clapkit.errors import ConfigError
from clapkit.models.audio_encoders import build_audio_encoder

NAMES = ("rescnn", "cnn4", "cnn14")
FEATURE_DIMS = {"rescnn": 64, "cnn4": 64, "cnn14": 2048}
N_MELS, N_FRAMES = 32, 51  # one second at 16 kHz with a hop of 320


def _new_encoder(name: str, n_channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    encoder = build_audio_encoder(EncoderConfig(name=name, width=8), AudioConfig(n_channels=n_channels, n_mels=N_MELS))
    encoder.initialize()
    return encoder


@pytest.fixture(scope="module")
def encoders() -> dict[str, nn.Module]:
    """Each tower with the running statistics of one training batch, so that its features are of order one."""
    towers = {name: _new_encoder(name) for name in NAMES}
    log_mel, n_valid_frames = _log_mel(4), torch.full((4,), N_FRAMES)
    for tower in towers.values():
        for module in tower.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.5, 0.2)  # so that zero padding does not stay zero behind a norm
        with torch.no_grad():
            tower.train()(log_mel, n_valid_frames)
        tower.eval()
    return towers


def _log_mel(batch: int, n_frames: int = N_FRAMES, n_channels: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, n_channels, N_MELS, n_frames, generator=torch.Generator().manual_seed(seed))


def _features(encoder: nn.Module, log_mel: Tensor, n_valid_frames: list[int]) -> Tensor:
    """Features of pictures whose frames past the clip's end are zero, as LogMel makes them."""
    frames, n_valid = torch.arange(log_mel.shape[-1]), torch.tensor(n_valid_frames)
    with torch.inference_mode():
        return encoder(log_mel * (frames < n_valid[:, None])[:, None, None], n_valid)


@pytest.mark.parametrize("name", NAMES)
def test_one_vector_per_window(name: str, encoders: dict[str, nn.Module]) -> None:
    features = _features(encoders[name], _log_mel(3), [51, 20, 7])
    assert features.shape == (3, FEATURE_DIMS[name])
    assert encoders[name].feature_dim == FEATURE_DIMS[name]
    assert torch.pdist(features).min() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_stereo_pictures_are_taken_and_both_channels_count(name: str) -> None:
    encoder = _new_encoder(name, n_channels=2)
    log_mel = _log_mel(2, n_channels=2)
    encoder.train()(log_mel, torch.tensor([51, 51]))
    stereo = _features(encoder.eval(), log_mel, [51, 51])
    assert stereo.shape == (2, FEATURE_DIMS[name])
    for channel in (0, 1):
        changed = log_mel.clone()
        changed[:, channel] = 0
        assert not torch.allclose(_features(encoder, changed, [51, 51]), stereo, rtol=1e-3, atol=0)


# An odd number of frames is the hard case: pooling pairs the last one with nothing, or with a zero if one follows.
@pytest.mark.parametrize("n_more", [1, 2, 64])
@pytest.mark.parametrize("n_valid", [51, 37, 4])
@pytest.mark.parametrize("name", NAMES)
def test_features_do_not_depend_on_the_length_of_the_window(
    name: str, n_valid: int, n_more: int, encoders: dict[str, nn.Module]
) -> None:
    log_mel = _log_mel(2)
    short = _features(encoders[name], log_mel, [n_valid, n_valid])
    long = _features(encoders[name], pad(log_mel, (0, n_more)), [n_valid, n_valid])
    torch.testing.assert_close(normalize(long), normalize(short), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_features_depend_on_every_valid_frame(name: str, encoders: dict[str, nn.Module]) -> None:
    log_mel = _log_mel(1, n_frames=64)
    before = _features(encoders[name], log_mel, [48])
    for frame in (0, 20, 47):
        changed = log_mel.clone()
        changed[..., frame] += 3
        assert not torch.allclose(_features(encoders[name], changed, [48]), before, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_features_do_not_depend_on_the_batch(name: str, encoders: dict[str, nn.Module]) -> None:
    log_mel, n_valid = _log_mel(4), [51, 3, 20, 1]
    together = _features(encoders[name], log_mel, n_valid)
    alone = [_features(encoders[name], log_mel[row : row + 1], n_valid[row : row + 1]) for row in range(4)]
    torch.testing.assert_close(normalize(together), normalize(torch.cat(alone)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_valid_frame_is_enough(name: str, encoders: dict[str, nn.Module]) -> None:
    features = _features(encoders[name], _log_mel(2), [1, 1])
    assert features.isfinite().all()
    assert features.std() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_silence_gives_finite_features(name: str, encoders: dict[str, nn.Module]) -> None:
    assert _features(encoders[name], torch.full((1, 1, N_MELS, N_FRAMES), -3.2), [51]).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_new_weights_give_features_of_order_one(name: str) -> None:
    features = _new_encoder(name).train()(_log_mel(4), torch.full((4,), N_FRAMES)).detach()
    assert features.isfinite().all()
    assert 0.02 < float(features.std()) < 10


# Five poolings would leave no frame of a window, or no mel bin, under 32.
@pytest.mark.parametrize(("n_mels", "n_frames"), [(32, 26), (16, 51)])
def test_cnn14_takes_every_size_that_the_config_allows(n_mels: int, n_frames: int) -> None:
    audio = AudioConfig(sample_rate=16_000, n_mels=n_mels, window_s=n_frames * 320 / 16_000)
    encoder = build_audio_encoder(EncoderConfig(name="cnn14"), audio).eval()
    features = encoder(torch.randn(1, 1, n_mels, n_frames), torch.tensor([n_frames]))
    assert features.isfinite().all()


HTSAT = EncoderConfig(name="htsat", width=8, depths=(1, 1), n_heads=(1, 2), dropout=0)
HTSAT_AUDIO = AudioConfig(sample_rate=48_000, window_s=2.0, hop_length=480, padding="repeat")


def test_htsat_is_transformers_own_tower() -> None:
    torch.manual_seed(0)
    tower = build_audio_encoder(HTSAT, HTSAT_AUDIO).eval()
    log_mel = torch.randn(2, 1, 64, 201)
    expected = tower.transformer(input_features=log_mel.transpose(2, 3)).pooler_output
    vectors = tower(log_mel, torch.tensor([201, 201]))
    assert vectors.shape == (2, tower.feature_dim)
    torch.testing.assert_close(vectors, expected)
    assert float((vectors[0] - vectors[1]).detach().abs().max()) > 1e-4


def test_the_fused_tower_hears_long_clips_otherwise() -> None:
    torch.manual_seed(0)
    tower = build_audio_encoder(HTSAT, HTSAT_AUDIO.model_copy(update={"fused_s": 8.0})).eval()
    log_mel = torch.randn(2, 4, 64, 201)
    valid = torch.tensor([201, 201])
    short = tower(log_mel[:, :1], valid)
    fused = tower(log_mel, valid)
    assert float((short - fused).detach().abs().max()) > 1e-5
    torch.testing.assert_close(tower(log_mel[1:], valid[1:]), fused[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        ({"n_mels": 32}, "32 mels"),
        ({"window_s": 12.0}, "1201 frames"),
        ({"n_channels": 2}, "2 channel"),
    ],
)
def test_htsat_refuses_pictures_that_it_cannot_read(audio: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_audio_encoder(HTSAT, HTSAT_AUDIO.model_copy(update=audio))


def test_only_htsat_fuses() -> None:
    with pytest.raises(ConfigError, match=r"only encoder\.name=htsat fuses"):
        build_audio_encoder(EncoderConfig(name="cnn4"), HTSAT_AUDIO.model_copy(update={"fused_s": 8.0}))


def test_resnet18_learns_and_leaves_padding_out_of_the_mean() -> None:
    torch.manual_seed(0)
    tower = build_audio_encoder(EncoderConfig(name="resnet18", dropout=0), AudioConfig()).eval()
    log_mel = torch.randn(2, 1, 64, 256)
    log_mel[1, ..., 64:] = 0
    vectors = tower(log_mel, torch.tensor([256, 64]))
    assert vectors.shape == (2, 512)
    vectors.square().mean().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())
    torch.testing.assert_close(tower(log_mel[1:], torch.tensor([64]))[0], vectors[1], atol=1e-5, rtol=1e-4)


def test_a_steady_colour_does_not_reach_the_channel_without_mean() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(name="rescnn", width=8, without_mean=True, dropout=0)
    tower = build_audio_encoder(config, AudioConfig(n_mels=N_MELS)).eval()
    with torch.no_grad():
        tower.stem.weight[:, 0] = 0  # the channel as given is not looked at
    log_mel, valid = _log_mel(3), torch.tensor([N_FRAMES, 20, N_FRAMES])
    log_mel = mask_frames(log_mel, valid)
    coloured = mask_frames(log_mel + torch.randn(3, 1, N_MELS, 1), valid)
    torch.testing.assert_close(tower(coloured, valid), tower(log_mel, valid), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tower(log_mel[1:2], valid[1:2])[0], tower(log_mel, valid)[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("is_fused", [False, True])
def test_htsat_has_the_weights_and_vectors_of_transformers_clap_model(is_fused: bool) -> None:
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if is_fused else {}
    sizes = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
    torch.manual_seed(0)
    theirs = ClapAudioModel(ClapAudioConfig(**sizes, **fusion)).eval()
    audio = HTSAT_AUDIO.model_copy(update={"fused_s": 8.0 if is_fused else None})
    ours = build_audio_encoder(HTSAT, audio).eval()
    ours.transformer.load_state_dict(theirs.state_dict(), strict=True)
    log_mel = torch.randn(2, 4 if is_fused else 1, 64, 201)
    is_longer = torch.ones(2, 1, dtype=torch.bool) if is_fused else None
    with torch.inference_mode():
        expected = theirs(input_features=log_mel.transpose(2, 3), is_longer=is_longer).pooler_output
        torch.testing.assert_close(ours(log_mel, torch.tensor([201, 201])), expected)


@pytest.mark.parametrize("is_fused", [False, True])
def test_all_of_htsat_learns(is_fused: bool) -> None:
    torch.manual_seed(0)
    tower = build_audio_encoder(HTSAT, HTSAT_AUDIO.model_copy(update={"fused_s": 8.0 if is_fused else None})).train()
    vectors = tower(torch.randn(2, 4 if is_fused else 1, 64, 201), torch.tensor([201, 201]))
    (vectors * torch.randn_like(vectors)).sum().backward()
    without = [name for name, parameter in tower.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in tower.parameters())


def test_htsat_reads_as_many_frames_as_its_square_holds() -> None:
    torch.manual_seed(0)
    tower = build_audio_encoder(HTSAT, HTSAT_AUDIO.model_copy(update={"window_s": 10.23})).eval()
    with torch.inference_mode():
        assert tower(torch.randn(1, 1, 64, 1024), torch.tensor([1024])).isfinite().all()


def test_heads_must_divide_htsats_stages() -> None:
    with pytest.raises(ValidationError, match=r"n_heads=\(1, 3\) must divide htsat's stages of \[8, 16\] channels"):
        EncoderConfig(name="htsat", width=8, depths=(1, 1), n_heads=(1, 3))
    assert EncoderConfig(name="rescnn", n_heads=(3,)).n_heads == (3,)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_resnet18_is_transformers_own(n_channels: int) -> None:
    torch.manual_seed(0)
    structure = ResNetConfig(
        num_channels=n_channels, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    theirs = ResNetModel(structure).eval()
    audio = AudioConfig(n_channels=n_channels)
    ours = build_audio_encoder(EncoderConfig(name="resnet18", dropout=0), audio).eval()
    ours.network.load_state_dict(theirs.state_dict(), strict=True)
    log_mel = torch.randn(2, n_channels, 64, 128)
    with torch.inference_mode():
        expected = theirs(log_mel).pooler_output.flatten(1)
        torch.testing.assert_close(ours(log_mel, torch.tensor([128, 128])), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "setting", ["depths=[0,2]", "depths=[1,1,1,1,1]", "depths=[]", "n_heads=[0,8,16,32]", "n_heads=[-4,8,16,32]"]
)
def test_stages_that_cannot_be_built_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"encoder\.{setting.split('=')[0]}") as error:
        load_config([], ["encoder.name=htsat", f"encoder.{setting}"])
    assert "\n" not in str(error.value)
