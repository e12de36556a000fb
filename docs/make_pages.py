"""Write the pages that hold what the command prints: `commands.md` and the table of `encoders.md`.

python docs/make_pages.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from wsicurate.embedding.presets import all_presets
from wsicurate.synthetic.cohort import write_cohort
from wsicurate.synthetic.description import SyntheticSlide

DOCS = Path(__file__).parent

#: The commands of the page, in order, with a sentence of each.
COMMANDS = (
    ("tile slides -o patches.zarr --dry-run", "What would happen: nothing is written."),
    ("tile slides -o patches.zarr", "Cut slides into patches."),
    ("info patches.zarr", "What is in a store."),
    ("check patches.zarr", "Is all of it sound?"),
    ("embed patches.zarr --encoder stain-texture", "A vector of every patch."),
    ("embed patches.zarr --encoder filter-bank", "Those of another encoder, for the evaluation."),
    (
        "curate patches.zarr --encoder stain-texture --evaluation-encoder filter-bank --budget 0.25 --name quarter",
        "Select the patches worth training on. `--embed-missing` does the two lines before as well.",
    ),
    (
        "report patches.zarr --curation quarter -o report.html",
        "One page to look at: [reading a report](reading-a-report.md).",
    ),
    ("export patches.zarr --curation quarter --to webdataset -o shards", "To other tools: [export](export.md)."),
    ("materialise patches.zarr --curation quarter -o quarter.zarr", "The chosen patches as a store of their own."),
    ("recipes", "Published settings, for `curate` and `run`."),
)


def slides(folder: Path) -> None:
    """The cohort of the page."""
    described = [SyntheticSlide(width=2_048, height=1_536, mpp=0.5, seed=seed, copies=seed) for seed in (1, 2)]
    write_cohort(folder / "slides", described, patients=2)


def printed(command: str, folder: Path) -> str:
    """What a command prints on standard output."""
    words = [sys.executable, "-m", "wsicurate", *command.split()]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.replace(f"{folder}/", "").rstrip()


def commands() -> str:
    """The page of the commands."""
    parts = [
        "# The commands\n\nOn two synthetic slides; `python docs/make_pages.py` wrote this page by running them. "
        "`wsicurate COMMAND --help` lists the options. All but `demo` and `recipes` take [`--json`](json.md); "
        "`run` is `tile`, `embed` and `curate` in one; `import` takes what others cut; [`doctor`](doctor.md) looks at "
        "the machine. "
        "`wsicurate --install-completion` completes commands and options in your shell.\n"
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        slides(folder)
        for command, words in COMMANDS:
            output = printed(command, folder)
            parts.append(f"## {command.split()[0]}\n\n{words}\n\n```console\n$ wsicurate {command}\n{output}\n```\n")
    text = "\n".join(parts)
    seen: set[str] = set()
    kept = []
    for line in text.split("\n"):  # one heading for a verb
        if line.startswith("## ") and line in seen:
            continue
        seen.add(line if line.startswith("## ") else "")
        kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept))


def encoders() -> str:
    """The table of the encoders."""
    rows = ["| encoder | licence of the weights | gated | what it says of derived data |", "|---|---|---|---|"]
    for name, preset in sorted(all_presets().items()):
        page = f"[{name}]({preset.url})" if preset.url else f"`{name}`"
        rows.append(f"| {page} | {preset.licence} | {'yes' if preset.gated else ''} | {preset.terms} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """`encoders.md` with its table made anew."""
    before, _, rest = page.partition("<!-- table -->\n")
    return f"{before}<!-- table -->\n{encoders()}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


if __name__ == "__main__":
    page = DOCS / "encoders.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    (DOCS / "commands.md").write_text(commands(), encoding="utf-8")
