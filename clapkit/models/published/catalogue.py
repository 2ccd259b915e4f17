"""The published models: where they lie, their licence, and what they have heard of the sets that we measure on.

Sources: the publishers' pages and threads; overlaps are LAION's own counts of Freesound recordings that ESC-50 and
UrbanSound8K share with FSD50K and Clotho (LAION-AI/audio-dataset, "Potential Data Leakage").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """Facts of a published model.

    Attributes:
        title: model and paper.
        hub_id: Hub repository.
        file: its weights file; None: the repository is a folder of transformers' ``ClapModel``.
        licence: of the weights, as the publisher states it.
        download_mb: size of the weights file.
        n_parameters: of all towers.
        trained_on: the data.
        n_pairs: sounds with a text; None where it is not stated.
        saw_esc50: what it has heard of ESC-50.
        saw_us8k: what it has heard of UrbanSound8K.
    """

    title: str
    hub_id: str
    file: str | None
    licence: str
    download_mb: int
    n_parameters: int
    trained_on: str
    n_pairs: int | None
    saw_esc50: str
    saw_us8k: str


def _shared(set_name: str, n_shared: str, n_clips: int, where: str = "FSD50K and Clotho", rest: str = "") -> str:
    return f"in part: up to {n_shared} of {set_name}'s {n_clips} clips share a recording with {where}{rest}"


_LAION_DATA = (
    "AudioSet, Freesound without ESC-50, UrbanSound8K, FSD50K and Clotho, Epidemic Sound, AudioCaps, FSD50K, BBC, "
    "Audiostock, Free To Use Sounds, Sonniss, Paramount, WavText5K, Clotho, MACS, We Sound Effects"
)
_LAION_SAW = {
    "saw_esc50": _shared("ESC-50", "493 (724 with all splits of FSD50K)", 2000),
    "saw_us8k": _shared("UrbanSound8K", "1108 (1629 with all splits of FSD50K)", 8732),
}
_WARNING = ", and more through WavCaps; the authors warn that some tasks are no true zero-shot"
_LARGER_SAW = {
    "saw_esc50": "probably in part, through Freesound; not stated",
    "saw_us8k": "probably in part, through Freesound; not stated",
}
_LARGER = {"file": None, "licence": "Apache-2.0", "download_mb": 776, "n_parameters": 193_913_882, **_LARGER_SAW}

PUBLISHED = {
    "msclap-2022": Published(
        title="Microsoft CLAP 2022: Cnn14 and BERT (Elizalde et al. 2023, arXiv 2206.04769)",
        hub_id="microsoft/msclap", file="CLAP_weights_2022.pth", licence="MS-PL",
        download_mb=2334, n_parameters=196_304_144,
        trained_on="FSD50K, Clotho v2 (all splits), AudioCaps, MACS; Cnn14 pretrained on AudioSet", n_pairs=128_010,
        saw_esc50=_shared("ESC-50", "554", 2000), saw_us8k=_shared("UrbanSound8K", "1467", 8732),
    ),
    "msclap-2023": Published(
        title="Microsoft CLAP 2023: HTSAT and GPT-2 (Elizalde et al. 2024, arXiv 2309.05767)",
        hub_id="microsoft/msclap", file="CLAP_weights_2023.pth", licence="MS-PL",
        download_mb=690, n_parameters=159_439_064,
        trained_on="WavCaps, AudioSet, FSD50K, Clotho, AudioCaps, MACS, WavText5K, SoundDescs, NSynth, FMA, speech, "
        "CochlScene, EPIC-Kitchens, Kinetics-700, findsounds.com", n_pairs=4_600_000,
        saw_esc50=_shared("ESC-50", "493", 2000, rest=_WARNING),
        saw_us8k=_shared("UrbanSound8K", "1108", 8732, rest=_WARNING),
    ),
    "clapcap": Published(
        title="Microsoft ClapCap: captions from the 2023 audio tower and GPT-2 (arXiv 2309.05767)",
        hub_id="microsoft/msclap", file="clapcap_weights_2023.pth", licence="MS-PL",
        download_mb=1712, n_parameters=226_918_615,
        trained_on="AudioCaps and Clotho v2.1 for the captions; the audio tower as msclap-2023", n_pairs=None,
        saw_esc50="in part: as msclap-2023", saw_us8k="in part: as msclap-2023",
    ),
    "laion/clap-htsat-unfused": Published(
        title="LAION-CLAP: HTSAT-tiny and RoBERTa (Wu et al. 2023, arXiv 2211.06687)",
        hub_id="laion/clap-htsat-unfused", file=None, licence="Apache-2.0",
        download_mb=615, n_parameters=153_492_890, trained_on=_LAION_DATA, n_pairs=2_541_614, **_LAION_SAW,
    ),
    "laion/clap-htsat-fused": Published(
        title="LAION-CLAP: HTSAT-tiny with fusion of long sounds, and RoBERTa (Wu et al. 2023, arXiv 2211.06687)",
        hub_id="laion/clap-htsat-fused", file=None, licence="Apache-2.0",
        download_mb=615, n_parameters=153_507_530, trained_on=_LAION_DATA, n_pairs=2_541_614, **_LAION_SAW,
    ),
    "laion/larger_clap_general": Published(
        title="LAION-CLAP: HTSAT-base and RoBERTa, for sounds, music and speech",
        hub_id="laion/larger_clap_general",
        trained_on="LAION-Audio-630K, AudioSet, music and speech sets that are not named", n_pairs=4_000_000, **_LARGER,
    ),
    "laion/larger_clap_music": Published(
        title="LAION-CLAP: HTSAT-base and RoBERTa, for music", hub_id="laion/larger_clap_music",
        trained_on="LAION-Audio-630K, AudioSet, music sets that are not named", n_pairs=None, **_LARGER,
    ),
    "laion/larger_clap_music_and_speech": Published(
        title="LAION-CLAP: HTSAT-base and RoBERTa, for music and speech", hub_id="laion/larger_clap_music_and_speech",
        trained_on="LAION-Audio-630K, music and speech sets that are not named", n_pairs=None, **_LARGER,
    ),
}  # fmt: skip
FAMILIES = {"laion": "laion/clap-htsat-unfused", "laion-fused": "laion/clap-htsat-fused"}
"""Recognised from keys alone, a file of LAION may be any of its models; these stand for them."""


def facts_of(name: str, *, is_certain: bool = True) -> dict[str, Any]:
    """What ``info`` shows of a published model or family; nothing for an unknown one.

    Args:
        name: of :data:`PUBLISHED` or :data:`FAMILIES`.
        is_certain: whether the weights are known to be the published ones; others may have the same keys.
    """
    known = PUBLISHED.get(FAMILIES.get(name, name))
    if known is None:
        return {}
    facts = {key: value for key, value in asdict(known).items() if value is not None and key not in ("hub_id", "file")}
    if is_certain:
        return {"published": name, **facts}
    kept = ("licence", "trained_on", "saw_esc50", "saw_us8k")
    return {
        "published": f"{name}, going by its keys",
        "title": f"in the layout of {known.title}",
        **{key: f"{facts[key]} (of the published weights)" for key in kept},
    }
