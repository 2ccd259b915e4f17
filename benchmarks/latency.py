"""How long one answer takes: each number the median over fresh processes, for one clip of 4 s.

python benchmarks/latency.py [--checkpoint base] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import soundfile

N_PROCESSES = 5
N_NEXT = 20
RATE, SECONDS = 44_100, 4

ONE_PROCESS = """
import json, sys, time
from statistics import median
checkpoint, file, n_next = sys.argv[1], sys.argv[2], int(sys.argv[3])
times = {}
def timed(name, action):
    start = time.perf_counter()
    result = action()
    times[name] = time.perf_counter() - start
    return result
start = time.perf_counter()
import clapkit
model = timed("clapkit.load", lambda: clapkit.load(checkpoint, device="cpu"))
times["import and load"] = time.perf_counter() - start
timed("first classify", lambda: model.classify(file))
def next_ones(action):
    seconds = []
    for _ in range(n_next):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return median(seconds)
times["next classify"] = next_ones(lambda: model.classify(file))
words = model.labels[:2]
timed("first zeroshot, known labels", lambda: model.zeroshot(file, words))
times["next zeroshot, known labels"] = next_ones(lambda: model.zeroshot(file, words))
new = ["a kettle boils", "somebody yawns"]
try:
    timed("first zeroshot, new words", lambda: model.zeroshot(file, new))
    times["next zeroshot, new words"] = next_ones(lambda: model.zeroshot(file, new))
except clapkit.ClapkitError as error:
    times["first zeroshot, new words"] = str(error)
print(json.dumps(times))
"""

COMMANDS = {
    "clapkit classify FILE": ["classify"],
    'clapkit zeroshot --labels "dog barking,siren" FILE': ["zeroshot", "--labels", "dog barking,siren"],
}


def command_seconds(arguments: list[str], file: Path, environment: dict[str, str]) -> float:
    """Wall time of one command, its start included."""
    start = perf_counter()
    subprocess.run(
        [sys.executable, "-m", "clapkit", *arguments, str(file)], check=True, capture_output=True, env=environment
    )
    return perf_counter() - start


def main() -> None:
    """Run the processes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.wav"
        soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal((RATE * SECONDS, 2)), RATE)
        call = [sys.executable, "-c", ONE_PROCESS, options.checkpoint, str(file), str(N_NEXT)]
        runs = []
        for _ in range(N_PROCESSES):
            printed = subprocess.run(call, check=True, capture_output=True, text=True, env=environment).stdout
            runs.append(json.loads(printed))
        print(f"{options.checkpoint}, one clip of {SECONDS} s at 44.1 kHz in stereo, CPU, {options.threads} threads")
        for name in runs[0]:
            values = [run[name] for run in runs]
            if isinstance(values[0], str):
                print(f"  {name:<52} {values[0]}")
            else:
                print(f"  {name:<52} {1000 * median(values):8.0f} ms")
        for name, words in COMMANDS.items():
            arguments = [*words, "--checkpoint", options.checkpoint]
            seconds = median(command_seconds(arguments, file, environment) for _ in range(N_PROCESSES))
            print(f"  {name:<52} {1000 * seconds:8.0f} ms")


if __name__ == "__main__":
    main()
