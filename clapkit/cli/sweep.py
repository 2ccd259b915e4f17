"""``clapkit sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clapkit import progress
from clapkit.cli.output import note, print_json, typed_command
from clapkit.errors import ClapkitError

Flag = Annotated[bool, Parameter(negative="")]


def sweep(
    *configs: Path, root: Path | None = None, folds: str = "all", epochs: int | None = None, defaults: bool = True,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None, output: Path = Path("runs/sweep"),
    device: str = "auto", overwrite: Flag = False, resume: Flag = False,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:  # fmt: skip
    """Cross-validate many experiments and print one table.

    Args:
        configs: YAML files of experiments, or folders of them, such as configs/thesis.
        root: the parent folder of the datasets; left out, CLAPKIT_DATA and the cache are searched.
        folds: all, or fold numbers such as 1,2,3.
        epochs: the most that an experiment is trained; the defaults keep theirs.
        defaults: run clapkit's default for each dataset too.
        set_: one setting for every experiment, such as train.seed=1; may be repeated.
        output: a folder for each experiment, and the table.
        device: auto (a GPU when there is one), cpu or cuda.
        overwrite: train everything anew.
        resume: keep what is finished, and go on.
        json: print the table as one JSON document.
    """
    from clapkit.device import choose_device
    from clapkit.training.processes import is_main_process, leave_processes
    from clapkit.training.sweep import read_experiments, run_sweep, sweep_lines

    progress.show_progress(progress.is_visible() and is_main_process())
    if epochs is not None and epochs < 1:
        raise ClapkitError(f"--epochs {epochs}: expected at least 1.")
    overrides = set_ or []
    experiments = read_experiments(list(configs), overrides, epochs)
    try:
        table = run_sweep(
            experiments, root, output, folds=folds, with_defaults=defaults, overrides=overrides,
            device=choose_device(device), overwrite=overwrite, resume=resume, command=typed_command(), report=note,
        )  # fmt: skip
    finally:
        leave_processes()
    if not is_main_process():
        return
    if json:
        print_json(table.to_dict("records"))
        return
    for line in sweep_lines(table):
        print(line)
    print(f"saved {output}")
