"""Benchmarks that need no data run, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_the_benchmark_of_the_search_prints_its_table() -> None:
    words = ["--sizes", "500", "--dim", "16", "--kinds", "exact", "hnsw", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.search", *words]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["500", "exact"], ["500", "hnsw"]]
    assert all(float(row[-2]) == 1.0 for row in rows)  # recall: both kinds find all of so few
