"""Regular expressions of users, matched where they can be stopped.

A pattern such as ``(a+)+b`` takes longer than anyone waits for a name of thirty letters, and nothing in Python's `re`
ends it. It is therefore matched by a Python process of its own, which has a deadline.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsicurate.errors import PatchImportError

#: Time that matching may take, seconds: so much, and so much more for every name.
DEADLINE_S = 10.0
SECONDS_PER_NAME = 1e-4

_SCRIPT = """
import json, re, sys
task = json.load(sys.stdin)
try:
    pattern = re.compile(task["pattern"])
except Exception as error:
    print(json.dumps({"error": str(error) or type(error).__name__}))
    sys.exit()
print(json.dumps({"groups": list(pattern.groupindex)}), flush=True)
step = 1 + len(task["names"]) // 1000
for number, name in enumerate(task["names"]):
    match = pattern.search(name)
    print(json.dumps(None if match is None else match.groupdict()), flush=number % step == 0)
"""


@dataclass(frozen=True)
class Matches:
    """What a pattern found.

    Attributes:
        groups: names of its groups.
        found: of each name, the text of each group, or None where the pattern does not match.
    """

    groups: Sequence[str]
    found: Sequence[Mapping[str, str | None] | None]


def match_names(pattern: str, names: Sequence[str]) -> Matches:
    """Search for a pattern in names.

    Raises:
        PatchImportError: if it is no regular expression, or takes longer than `DEADLINE_S`.
    """
    deadline = DEADLINE_S + SECONDS_PER_NAME * len(names)
    task = json.dumps({"pattern": pattern, "names": list(names)}).encode()
    command = [sys.executable, "-I", "-S", "-c", _SCRIPT]
    try:
        ended = subprocess.run(command, input=task, capture_output=True, timeout=deadline, check=False)
    except subprocess.TimeoutExpired as error:
        done = max(0, (error.stdout or b"").count(b"\n") - 1)
        where = f" near {names[done]!r}" if done < len(names) else ""
        raise PatchImportError(
            f"--name-pattern {pattern!r} does not come to an end{where}: stopped after {deadline:.0f} s. Repeats "
            "within repeats, such as (a+)+, take for ever; write it without"
        ) from error
    answers: list[Any] = [json.loads(line) for line in ended.stdout.splitlines()]
    if answers and "error" in (answers[0] or {}):
        raise PatchImportError(f"--name-pattern is {pattern!r}, which is no regular expression: {answers[0]['error']}")
    if ended.returncode or len(answers) != len(names) + 1:
        raise PatchImportError(f"--name-pattern {pattern!r} cannot be matched: Python ended with {ended.returncode}")
    return Matches(answers[0]["groups"], answers[1:])
