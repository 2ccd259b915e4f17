"""Who embeds the files of an index: this process, or a Ray cluster; both leave the same parts in the same folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from clapkit.errors import AudioError, ClapkitError
from clapkit.model import AudioTextModel, load
from clapkit.search.embed import embed_part
from clapkit.search.parts import FILE_COLUMNS, PART_FILES, in_parts, write_part
from clapkit.storage import disk_problem

PARTS_PER_ACTOR = 4
"""At least so many, so that none waits long for the others."""


def embed_locally(
    model: AudioTextModel, files: pd.DataFrame, hop_s: float, folder: Path, advance: Callable[..., None], *,
    strict: bool,
) -> None:  # fmt: skip
    """Part after part, while other threads decode ahead."""
    for part in in_parts(files):
        write_part(embed_part(model, part, hop_s, advance, strict=strict), folder)


def embed_on_ray(
    model: AudioTextModel, files: pd.DataFrame, hop_s: float, folder: Path, advance: Callable[..., None], *,
    strict: bool,
) -> None:  # fmt: skip
    """Parts on the actors of a Ray cluster, one per GPU, or per processor where there is none.

    A running cluster is found by ``RAY_ADDRESS`` or on this machine, else one is started here. Its machines must see
    the sounds, the index folder and the checkpoint under the same paths. Each actor writes its parts itself.

    Raises:
        ClapkitError: Ray is not installed, or an actor loads another model under the checkpoint's name.
        AudioError: a bad file, when ``strict``.
    """
    if files.empty:
        return
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError:
        raise ClapkitError("--engine ray needs Ray; install it: pip install 'clapkit[cluster]'.") from None

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    starts = not ray.is_initialized()
    if starts:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()
        n_gpus = int(resources.get("GPU", 0))
        n_actors = n_gpus or max(int(resources["CPU"]) - 1, 1)  # one stays free for Ray's own tasks
        part_size = min(PART_FILES, -(-len(files) // (PARTS_PER_ACTOR * n_actors)))
        parts = [{"files": json.dumps(part[FILE_COLUMNS].values.tolist())} for part in in_parts(files, part_size)]
        arguments = (model.origin, model.fingerprint, str(model.dtype), hop_s, str(folder.resolve()), strict)
        done = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
            PartEmbedder, fn_constructor_args=arguments, batch_size=1, num_cpus=1, num_gpus=1 if n_gpus else 0,
            compute=ActorPoolStrategy(size=min(n_actors, len(parts))),
        )  # fmt: skip
        for row in done.iter_rows():
            if row["problem"]:
                raise AudioError(row["problem"]) if row["is_bad_file"] else ClapkitError(row["problem"])
            advance(row["n_files"])
    finally:
        if starts:
            ray.shutdown()


class PartEmbedder:
    """One actor: holds a model, embeds parts and writes them."""

    def __init__(
        self, checkpoint: str, fingerprint: dict[str, str], dtype: str, hop_s: float, folder: str, strict: bool
    ) -> None:
        self.hop_s, self.folder, self.strict = hop_s, Path(folder), strict
        self.model = load(checkpoint, precision="float32" if dtype == "torch.float32" else "bf16")
        self.problem = ""
        if self.model.fingerprint != fingerprint:
            self.problem = (
                f"{checkpoint}: a machine of the cluster has another model under this name; give a checkpoint folder "
                "that all of them see."
            )

    def __call__(self, batch: dict) -> dict:
        """Embed the one part of a batch."""
        files = pd.DataFrame(json.loads(batch["files"][0]), columns=FILE_COLUMNS)
        problem, is_bad_file = self.problem, False
        if not problem:
            try:
                write_part(embed_part(self.model, files, self.hop_s, strict=self.strict), self.folder)
            except AudioError as error:
                problem, is_bad_file = str(error), True
            except OSError as error:
                problem = f"{self.folder}: could not be written ({disk_problem(error)})."
        return {"n_files": [len(files)], "problem": [problem], "is_bad_file": [is_bad_file]}


ENGINES = {"local": embed_locally, "ray": embed_on_ray}
