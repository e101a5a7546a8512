"""Tables and README say what the committed result files hold.

`python -m experiments.run --report --results experiments/results/ablations` makes the tables.
"""

import re

import pytest

from experiments.runner import ablation, results, table
from tests.support.helpers import ROOT

FOLDER = ROOT / "experiments/results/ablations"
TABLES = sorted(FOLDER.glob("*/*.md"))
INTERVAL = re.compile(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_table_is_that_of_its_result_files(path):
    found, scale = ablation.load(path.stem), path.parent.name
    stored = results.read(FOLDER, scale, path.stem, found.variations)
    line = f"python -m experiments.run {path.stem} --scale {scale}"
    assert path.read_text() == table.markdown(found, scale, stored, {}, line)
    assert path.with_suffix(".png").is_file()


def test_every_result_file_belongs_to_a_variation_and_a_missing_one_is_named():
    assert TABLES
    for path in TABLES:
        files = {file.stem for file in path.with_suffix("").glob("*.json")}
        seeds = {name.rpartition(".seed")[2] for name in files}
        slugs = {ablation.slug(name): name for name in ablation.load(path.stem).variations}
        run = {name.rpartition(".seed")[0] for name in files}
        assert run <= set(slugs)
        missing = {f"{slug}.seed{seed}" for slug in slugs for seed in seeds} - files
        *_, named = path.read_text().partition("Without a result yet: ")
        for slug, _, seed in (file.rpartition(".seed") for file in missing):
            assert slugs[slug] + (f" with seed {seed}" if slug in run else "") in named
        assert missing or not named


def test_numbers_of_the_readme_are_those_of_the_tables():
    rows = [
        line
        for line in (ROOT / "experiments/README.md").read_text().splitlines()
        if "python -m experiments.run " in line and INTERVAL.search(line)
    ]
    assert rows
    for row in rows:
        (name,) = re.findall(r"python -m experiments\.run (\w+)`", row)
        tables = re.findall(rf"\(results/ablations/(\w+/{name}\.md)\)", row)
        text = "".join((FOLDER / path).read_text() for path in tables)
        for number in INTERVAL.findall(row):
            assert number in text, f"{name}: {number} is not in its tables"
