"""The ``clapkit`` command: names its sub-commands, and turns a user's mistake into one line and exit code 2."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

from cyclopts import App, Parameter

from clapkit import __version__
from clapkit.errors import ClapkitError
from clapkit.progress import show_progress

COMMANDS = {
    "demo": ("clapkit.cli.demo:demo", "Try everything on made-up city sounds: no data, no network, no GPU."),
    "train": ("clapkit.cli.train:train", "Train a model on a dataset or on your own sounds."),
    "sweep": ("clapkit.cli.sweep:sweep", "Cross-validate many experiments and print one table."),
    "compare": ("clapkit.cli.compare:compare", "Put runs side by side: figures and the settings that differ."),
    "zeroshot": ("clapkit.cli.score:zeroshot", "Score sounds against labels in free words."),
    "classify": ("clapkit.cli.score:classify", "Score sounds against the labels a model was trained on."),
    "caption": ("clapkit.cli.caption:caption", "Describe sounds in a sentence."),
    "evaluate": ("clapkit.cli.evaluate:evaluate", "Measure a checkpoint on labelled clips."),
    "index": ("clapkit.cli.search:index", "Make sounds searchable."),
    "search": ("clapkit.cli.search:search", "Find sounds by words, or by other sounds."),
    "index-add": ("clapkit.cli.search:index_add", "Put more sounds into an index."),
    "index-update": ("clapkit.cli.search:index_update", "Follow what changed in the folders of an index."),
    "index-remove": ("clapkit.cli.search:index_remove", "Take sounds out of an index."),
    "index-merge": ("clapkit.cli.search:index_merge", "Put other indexes into an index."),
    "index-info": ("clapkit.cli.search:index_info", "What an index holds and which model made it."),
    "index-verify": ("clapkit.cli.search:index_verify", "Check that an index is whole."),
    "index-export": ("clapkit.cli.embed:index_export", "Write an index for other programs: Parquet, LanceDB."),
    "embed": ("clapkit.cli.embed:embed", "Write the vectors of sounds into a Parquet file."),
    "datasets": ("clapkit.cli.inspect:datasets", "What is known, where it is looked for, how to get it."),
    "convert": ("clapkit.cli.convert:convert", "Write a published checkpoint as a clapkit folder."),
    "join": ("clapkit.cli.convert:join", "Make one model of several trained apart."),
    "export": ("clapkit.cli.export:export", "Write both towers as ONNX, checked against the model."),
    "info": ("clapkit.cli.info:info", "What a checkpoint is, its licence, and what it has heard."),
    "plot": ("clapkit.cli.inspect:plot", "Draw a sound: waveform and log-mel picture."),
}

app = App(
    name="clapkit",
    version=__version__,
    help="Understand sounds through language: train, classify, score against words, and search.",
    help_format="plaintext",
)
for _name, (_place, _help) in COMMANDS.items():
    app.command(_place, name=_name, help=_help)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(negative="", help="No progress bars and no notes, only results.")] = False,
) -> None:
    show_progress(not quiet)
    app(tokens)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no "█" still gets its figures
    words = sys.argv[1:]
    command = next((word for word in words if not word.startswith("-")), "")
    if "" in words and (command == "embed" or command.startswith("index")):  # would mean the whole current folder
        _fail(f"clapkit {command}: an argument is empty; expected a path (is a shell variable unset?).")
    try:
        app.meta(words)
    except ClapkitError as error:
        _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        _fail(f"{error.filename or 'disk'}: {error.strerror or error}; check the path, its rights, and the free space.")
    except KeyboardInterrupt:
        print("clapkit: stopped", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"clapkit: {message}", file=sys.stderr)
    sys.exit(2)
