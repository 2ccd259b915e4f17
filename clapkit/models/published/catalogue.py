"""The published models: where they lie, and what is known of their licence and of what they have heard."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Published:
    """Facts of a published model, as its publisher states them.

    Attributes:
        title: model and paper.
        hub_id: Hub repository.
        file: its weights file; None: the repository is a folder of transformers' ``ClapModel``.
        licence: of the weights.
        trained_on: the data.
        saw_esc50: what it has heard of ESC-50.
        saw_us8k: what it has heard of UrbanSound8K.
    """

    title: str
    hub_id: str
    file: str | None
    licence: str
    trained_on: str
    saw_esc50: str
    saw_us8k: str


PUBLISHED: dict[str, Published] = {}
FAMILIES = {"laion": "laion/clap-htsat-unfused", "laion-fused": "laion/clap-htsat-fused"}
"""Recognised from keys alone, a file of LAION may be any of its models; these stand for them."""


def facts_of(name: str) -> dict[str, str]:
    """What ``info`` shows of a published model or family; nothing for an unknown one."""
    known = PUBLISHED.get(FAMILIES.get(name, name))
    if known is None:
        return {}
    facts = {key: value for key, value in asdict(known).items() if key not in ("hub_id", "file")}
    return {"published": name, **facts}
