"""msclap's beam search over clapkit's captioner: tells whether a caption differs by the search or by the numbers."""

from __future__ import annotations

import torch

from clapkit.models.caption import Captioner


@torch.inference_mode()
def search(captioner: Captioner, vector: torch.Tensor, n_beams: int, most_tokens: int = 67) -> list[int]:
    """The caption for ``(embed_dim,)`` as tokens, the ending one included.

    Beams are ranked at every step by their mean log-probability, and one that has ended keeps its place among them.
    transformers ranks the running ones by their sum, puts those that ended aside, and fills their places.
    """
    prefix, end = captioner.mapper(vector[None]), captioner.end_token
    rows = torch.zeros(1, 0, dtype=torch.long)
    sums, lengths, has_ended = torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.bool)
    for _ in range(most_tokens):
        words = captioner.decoder.transformer.wte(rows)
        inputs = torch.cat([prefix.expand(len(rows), -1, -1), words], dim=1)
        steps = captioner.decoder(inputs_embeds=inputs).logits[:, -1].log_softmax(dim=-1)  # (n_rows, n_words)
        steps[has_ended] = -torch.inf
        steps[has_ended, 0] = 0  # an ended beam goes on with padding, at no cost
        lengths = lengths + (~has_ended).float()
        means, places = ((sums[:, None] + steps) / lengths[:, None]).flatten().topk(n_beams)
        source, words = places // steps.shape[1], places % steps.shape[1]
        rows = torch.cat([rows[source], words[:, None]], dim=1)
        lengths, has_ended = lengths[source], has_ended[source] | (words == end)
        sums = means * lengths
        if has_ended.all():
            break
    best = (sums / lengths).argmax()
    return rows[best, : int(lengths[best])].tolist()


@torch.inference_mode()
def mean_log_probability(captioner: Captioner, vector: torch.Tensor, row: list[int]) -> float:
    """Of a caption, its ending token included."""
    prefix = captioner.mapper(vector[None])
    inputs = torch.cat([prefix, captioner.decoder.transformer.wte(torch.tensor([row[:-1]], dtype=torch.long))], dim=1)
    steps = captioner.decoder(inputs_embeds=inputs).logits[0, prefix.shape[1] - 1 :].log_softmax(dim=-1)
    return float(steps[torch.arange(len(row)), torch.tensor(row)].mean())
