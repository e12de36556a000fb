"""Which lines could be wrong without a test that fails? One line is changed at a time, and its tests are run.

    python benchmarks/mutants.py                          # every mutant of every file: days on 2 cores
    python benchmarks/mutants.py --sample 40 --seed 1     # forty of them, drawn over all files
    python benchmarks/mutants.py --files wsicurate/curation/copies/registration.py wsicurate/store/commit.py
    python benchmarks/mutants.py --files wsicurate/store/leases.py --tests tests/store/test_leases.py
    python benchmarks/mutants.py --list --files wsicurate/curation/copies/groups.py   # what would be changed

The files are those that decide about data: the store, the engine, copies, leakage, selection. For each, the tests that
are about it are named below (`TESTS`). A mutant is one change to one line: a condition negated, a comparison moved by
one (``<`` for ``<=``) or turned round, ``and`` for ``or``, ``min`` for ``max``, a sign, a whole number one larger, a
statement or a ``raise`` left out. It is *killed* if a test fails or ends the interpreter, *stuck* if the tests take
several times as long as without it (which kills it as well), and it *survives* if all tests pass: either no test looks
at what the line decides, or it decides nothing (a speed, a message, a bound that is never reached). Each survivor is
printed with its line.

Nothing is written to the repository: a copy of the tree is changed in a temporary folder. Slow tests are left out.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

#: Which tests are about a file: globs of files, and the tests that are run for each. The first that fits is taken.
TESTS: Sequence[tuple[str, Sequence[str]]] = (
    ("wsicurate/store/manifest.py", ("tests/store/test_manifest.py", "tests/steps/curating/test_decisions.py")),
    ("wsicurate/store/verify.py", ("tests/store", "tests/steps/test_check.py")),
    ("wsicurate/store/embeddings.py", ("tests/store/test_embeddings.py", "tests/steps/test_check.py")),
    ("wsicurate/store/leases.py", ("tests/store/test_leases.py",)),
    ("wsicurate/store/bytestore.py", ("tests/store/test_bytestore.py", "tests/store/test_leases.py")),
    ("wsicurate/store/commit.py", ("tests/store/test_commit.py", "tests/steps/test_tile.py")),
    ("wsicurate/store/store.py", ("tests/store/test_store.py", "tests/steps/curating/test_damaged.py")),
    ("wsicurate/store/*.py", ("tests/store",)),
    ("wsicurate/steps/tile.py", ("tests/steps/test_tile.py", "tests/steps/tiling/test_reading.py")),
    ("wsicurate/steps/tiling/tasks.py", ("tests/steps/test_tile.py", "tests/steps/tiling/test_reading.py")),
    ("wsicurate/steps/embed.py", ("tests/steps/test_embed.py",)),
    ("wsicurate/engine/workers.py", ("tests/engine/test_workers.py",)),
    ("wsicurate/steps/importing/runs.py", ("tests/steps/test_import.py", "tests/steps/importing/test_coordinates.py")),
    ("wsicurate/steps/check.py", ("tests/steps/test_check.py",)),
    ("wsicurate/engine/cache.py", ("tests/engine/test_cache.py",)),
    ("wsicurate/curation/ledger.py", ("tests/curation/test_ledger.py", "tests/steps/curating/test_decisions.py")),
    (
        "wsicurate/steps/curating/copy_evidence.py",
        ("tests/steps/curating/test_copy_evidence.py", "tests/steps/curating/test_copy_search.py"),
    ),
    (
        "wsicurate/steps/curating/copy_[cst]*.py",
        ("tests/steps/curating/test_copy_search.py", "tests/steps/curating/test_decisions.py"),
    ),
    ("wsicurate/steps/curating/pool.py", ("tests/steps/curating/test_pool.py", "tests/steps/curating/test_damaged.py")),
    (
        "wsicurate/steps/curating/inputs.py",
        ("tests/steps/curating/test_damaged.py", "tests/steps/curating/test_decisions.py"),
    ),
    ("wsicurate/steps/curating/copies.py", ("tests/steps/curating/test_decisions.py",)),
    (
        "wsicurate/steps/curating/clusters.py",
        ("tests/steps/curating/test_clusterings.py", "tests/steps/test_curate.py"),
    ),
    ("wsicurate/steps/curating/draw.py", ("tests/steps/curating/test_decisions.py",)),
    ("wsicurate/steps/embedding/reembedding.py", ("tests/steps/embedding/test_reembedding.py",)),
    ("wsicurate/steps/curating/comparison.py", ("tests/steps/test_curate.py",)),
    ("wsicurate/steps/*.py", ("tests/steps/curating/test_decisions.py", "tests/steps/test_curate.py")),
    ("wsicurate/curation/copies/registration.py", ("tests/curation/copies/test_registration.py",)),
    ("wsicurate/curation/copies/shift.py", ("tests/curation/copies/test_registration.py",)),
    ("wsicurate/curation/copies/features.py", ("tests/curation/copies/test_registration.py",)),
    ("wsicurate/curation/copies/structure.py", ("tests/curation/copies/test_registration.py",)),
    (
        "wsicurate/curation/neighbours/search.py",
        ("tests/curation/neighbours/test_search.py", "tests/curation/neighbours/test_nearest.py"),
    ),
    ("wsicurate/curation/neighbours/lists.py", ("tests/curation/neighbours/test_nearest.py",)),
    ("wsicurate/curation/copies/components.py", ("tests/curation/copies/test_groups.py",)),
    (
        "wsicurate/curation/copies/serial.py",
        ("tests/curation/copies/test_groups.py", "tests/steps/curating/test_copy_search.py"),
    ),
    *(
        (f"wsicurate/curation/selection/{part}.py", ("tests/curation/selection/test_draw.py",))
        for part in ("tree", "caps", "turns")
    ),
    ("wsicurate/curation/clustering/lloyd.py", ("tests/curation/clustering/test_kmeans.py",)),
    (
        "wsicurate/curation/clustering/cells.py",
        ("tests/curation/clustering/test_kmeans.py", "tests/curation/clustering/test_hierarchy.py"),
    ),
)

#: What is tried where no files are named.
DEFAULT = (
    "wsicurate/store/*.py",
    "wsicurate/engine/*.py",
    *(f"wsicurate/steps/{name}.py" for name in ("tile", "embed", "curate", "importing/runs", "embedding/reembedding")),
    "wsicurate/steps/curating/*.py",
    "wsicurate/curation/ledger.py",
    *(f"wsicurate/curation/{room}/*.py" for room in ("copies", "neighbours", "filters", "selection")),
    "wsicurate/curation/clustering/lloyd.py",
)

_SWAPPED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_OPPOSITE = {
    **{name: other for pair in (("min", "max"), ("any", "all")) for name, other in (pair, pair[::-1])},
    **{name: other for pair in (("minimum", "maximum"), ("argmin", "argmax")) for name, other in (pair, pair[::-1])},
    **{name: other for pair in (("zeros", "ones"), ("floor", "ceil")) for name, other in (pair, pair[::-1])},
}


@dataclass(frozen=True)
class Mutant:
    """One change to a file.

    Attributes:
        file: below the repository.
        line: number of the first line that changes.
        what: the change in words.
        source: the whole file, changed.
    """

    file: str
    line: int
    what: str
    source: bytes


class _Changes(ast.NodeVisitor):
    """Finds what can be changed: (node, the code in its stead, what that is)."""

    def __init__(self) -> None:
        self.found: list[tuple[ast.AST, str, str]] = []
        self._in_function = False

    def _change(self, node: ast.AST, into: ast.AST, what: str) -> None:
        self.found.append((node, f"({ast.unparse(into)})" if isinstance(into, ast.expr) else ast.unparse(into), what))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._in_function = self._in_function, True
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        defaults = [default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None]
        for part in (*defaults, *body):  # neither decorators nor annotations nor the docstring
            self.visit(part)
        self._in_function = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # of zip: that lengths are equal is asserted, and decides nothing
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Import(self, node: ast.Import) -> None:
        """Nothing in an import decides."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Likewise."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nor in a message."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self._change(node, ast.Pass(), "no raise")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and self._in_function:
            self._change(node, ast.Pass(), "no call")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._change(node, ast.Pass(), "no update")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if self._in_function and all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._change(node, ast.Pass(), "no assignment")
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._change(node, ast.Pass(), "no continue")

    def visit_Break(self, node: ast.Break) -> None:
        self._change(node, ast.Pass(), "no break")

    def _condition(self, test: ast.expr) -> None:
        if isinstance(test, ast.Name) and test.id == "TYPE_CHECKING":
            return
        if isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and len(_SWAPPED[type(test.ops[0])]) == 1):
            return  # what is done to the operator is the same
        self._change(test, ast.UnaryOp(ast.Not(), test), "negated")

    def visit_If(self, node: ast.If) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, operator in enumerate(node.ops):
            for other in _SWAPPED[type(operator)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                self._change(node, ast.Compare(node.left, ops, node.comparators), "comparison")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._change(node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values), "and/or")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.Invert | ast.USub):
            self._change(node, node.operand, "sign")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _ARITHMETIC and not isinstance(node.left, ast.Constant | ast.JoinedStr):
            self._change(node, ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right), "arithmetic")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._change(node, ast.Constant(not node.value), "true/false")
        elif isinstance(node.value, int):
            self._change(node, ast.Constant(node.value + 1), "one more")
        elif isinstance(node.value, float):
            self._change(node, ast.Constant(node.value * 1.5 + 1e-3), "another number")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in _OPPOSITE:
            self._change(node, ast.Name(_OPPOSITE[node.id]), "opposite")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in _OPPOSITE:
            self._change(node, ast.Attribute(node.value, _OPPOSITE[node.attr]), "opposite")
        self.generic_visit(node)


def mutants_of(file: str) -> Iterator[Mutant]:
    """All changes to a file that leave it a program, in the order of its lines."""
    source = (REPOSITORY / file).read_bytes()
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    changes = _Changes()
    changes.visit(ast.parse(source))
    for node, code, what in changes.found:
        begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        changed = source[:begin] + code.encode() + source[end:]
        try:
            if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)):
                continue
        except SyntaxError:
            continue
        was = " ".join(source[begin:end].decode().split())
        yield Mutant(file, node.lineno, f"{what}: {_short(was)} -> {_short(code)}", changed)  # type: ignore[attr-defined]


def _short(code: str) -> str:
    return code if len(code) <= 70 else f"{code[:67]}..."


def tests_of(file: str) -> Sequence[str]:
    """The tests that are run for a file."""
    for pattern, tests in TESTS:
        if Path(file).match(pattern):
            return tests
    own = f"tests/{Path(file).parent.name}/test_{Path(file).stem}.py"
    return (own,) if (REPOSITORY / own).exists() else (f"tests/{Path(file).parent.name}",)


def copy_of_tree(folder: Path) -> Path:
    """The files of the repository that the tests need."""
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache")
    shutil.copytree(REPOSITORY, tree, ignore=ignored)
    return tree


def run_tests(tree: Path, tests: Sequence[str], timeout_s: float) -> tuple[str, float]:
    """``passed``, ``failed`` or ``stuck``, and how long it took."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "WSICURATE_SHARED": os.environ.get("WSICURATE_SHARED", str(REPOSITORY.parent / "shared" / "data")),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    command += ["--basetemp", str(tree.parent / "pytest")]
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        status = process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return "stuck", time.monotonic() - began
    finally:
        if process.poll() is None:  # it hangs, or this command is interrupted
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "passed" if status == 0 else "failed", time.monotonic() - began


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", metavar="GLOB", default=DEFAULT, help="below the repository")
    parser.add_argument("--tests", nargs="+", help="run these for every file")
    parser.add_argument("--sample", type=int, metavar="N", help="try only so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--lines", metavar="A-B", help="only these lines of each file")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run nothing")
    options = parser.parse_args()
    files = sorted(
        {path.relative_to(REPOSITORY).as_posix() for glob in options.files for path in REPOSITORY.glob(glob)}
    )
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    if options.lines:
        first, _, last = options.lines.partition("-")
        mutants = [mutant for mutant in mutants if int(first) <= mutant.line <= int(last or first)]
    print(f"{len(mutants):,} mutants of {len(files)} files", flush=True)
    if options.sample is not None and options.sample < len(mutants):
        chosen = sorted(random.Random(options.seed).sample(range(len(mutants)), options.sample))
        mutants = [mutants[number] for number in chosen]
        print(f"{len(mutants)} of them are tried (--seed {options.seed})", flush=True)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line}  {mutant.what}")
        return
    if hasattr(os, "nice"):
        os.nice(10)
    with tempfile.TemporaryDirectory(prefix="wsicurate-mutants-") as folder:
        try_all(mutants, copy_of_tree(Path(folder)), options.tests)


def try_all(mutants: Sequence[Mutant], tree: Path, tests: Sequence[str] | None) -> None:
    """Run the tests of every mutant, and print what became of it; then the table and the survivors."""
    plain: dict[tuple[str, ...], float] = {}
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("failed", "stuck", "passed"), 0))
    survivors: list[Mutant] = []
    began = time.monotonic()
    for number, mutant in enumerate(mutants, start=1):
        asked = tuple(tests or tests_of(mutant.file))
        if asked not in plain:
            status, plain[asked] = run_tests(tree, asked, 3_600)
            print(f"without a change {' '.join(asked)}: {status} in {plain[asked]:.0f} s", flush=True)
            if status != "passed":
                raise SystemExit("the tests fail as they are; nothing can be said of a mutant")
        path = tree / mutant.file
        original = path.read_bytes()
        path.write_bytes(mutant.source)
        status, seconds = run_tests(tree, asked, 5 * plain[asked] + 30)
        path.write_bytes(original)
        counts[mutant.file][status] += 1
        if status == "passed":
            survivors.append(mutant)
        word = {"failed": "killed", "stuck": "stuck", "passed": "SURVIVES"}[status]
        print(
            f"{number}/{len(mutants)} {word:8} {seconds:5.0f} s  {mutant.file}:{mutant.line}  {mutant.what}", flush=True
        )
    print(f"\n{'file':48} {'mutants':>8} {'killed':>8} {'stuck':>8} {'survive':>8}")
    for file, found in sorted(counts.items()):
        print(f"{file:48} {sum(found.values()):8} {found['failed']:8} {found['stuck']:8} {found['passed']:8}")
    total = {name: sum(found[name] for found in counts.values()) for name in ("failed", "stuck", "passed")}
    print(f"{'all':48} {sum(total.values()):8} {total['failed']:8} {total['stuck']:8} {total['passed']:8}")
    print(f"{(time.monotonic() - began) / 60:.1f} min")
    for mutant in survivors:
        line = (REPOSITORY / mutant.file).read_text().splitlines()[mutant.line - 1].strip()
        print(f"\nsurvives: {mutant.file}:{mutant.line}\n    {line}\n    {mutant.what}")


if __name__ == "__main__":
    main()
