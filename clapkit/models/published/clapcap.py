"""clapcap: msclap-2023's audio tower, a mapper from its vectors to a prefix, and GPT-2 that writes on from there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clapkit.config import NO_TEXT_TOWER, load_config, preset
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.published.assembling import ADVICE, assemble
from clapkit.models.published.msclap import HTSAT_PLACE, HTSAT_PREFIX, projection_rules
from clapkit.models.published.renaming import HTSAT_RULES, TEXT_RULES, rename, within
from clapkit.models.published.sizes import gpt2_structure, htsat_settings
from clapkit.models.weights import load_strictly

AUDIO, MAPPER, DECODER = f"clap.base.{HTSAT_PREFIX}", "clap_project.", "gpt."


def read_clapcap(weights: Mapping[str, Tensor], origin: str) -> Checkpoint:
    """The audio tower with its projection, the mapper, and GPT-2; there is no text tower inside."""
    from clapkit.models.caption import MSCLAP_END, Captioner
    from clapkit.models.prefix_mapper import PrefixMapper

    embed_dim = weights["clap.projection.linear1.weight"].shape[0]
    overrides = [f"model.embed_dim={embed_dim}", "model.head=false", *htsat_settings(weights, AUDIO)]
    overrides += [f"text.name={NO_TEXT_TOWER}", "text.pooling=auto", "model.text_projection=none"]
    config = load_config([preset("msclap-2023")], overrides)
    parts = {key: value for key, value in weights.items() if key.startswith("clap.")}
    parts["logit_scale"] = torch.zeros(())  # the temperature of sounds and texts, of which this file knows nothing
    rules = [
        *within(AUDIO, HTSAT_PLACE, HTSAT_RULES),
        *projection_rules("clap.projection.", "audio_projection."),
        ("logit_scale", "logit_scale"),
    ]
    checkpoint = assemble(config, None, parts, rules, origin, weights.get(f"{AUDIO}logmel_extractor.melW"))

    from transformers import GPT2LMHeadModel

    prefix_length, width = weights[f"{MAPPER}prefix_const"].shape
    n_layers = len({key.split(".")[3] for key in weights if key.startswith(f"{MAPPER}transformer.layers.")})
    clip_length = weights[f"{MAPPER}linear.weight"].shape[0] // width
    mapper = PrefixMapper(embed_dim, width, prefix_length=prefix_length, clip_length=clip_length, n_layers=n_layers)
    decoder = GPT2LMHeadModel(gpt2_structure(weights, f"{DECODER}transformer."))
    captioner = Captioner(mapper, decoder, "gpt2", end=MSCLAP_END)
    rules = [
        *within(MAPPER, "mapper.", [("(.*)", r"\1")]),
        *within(f"{DECODER}transformer.", "decoder.transformer.", TEXT_RULES),
        (rf"{DECODER}lm_head\.weight", "decoder.lm_head.weight"),
    ]
    rest = {key: value for key, value in weights.items() if not key.startswith("clap.")}
    load_strictly(captioner, rename(rest, rules, origin), origin, ADVICE)
    checkpoint.captioner = captioner.eval()
    return checkpoint
