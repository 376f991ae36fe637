# SPDX-License-Identifier: GPL-2.0
"""Reads test results in the kernel's format (Documentation/dev-tools/ktap.rst)."""

import dataclasses
import re

RESULT = re.compile(r"(?P<no>not )?ok\b *(?P<number>\d+)?[ -]*(?P<name>.*)")
PLAN = re.compile(r"1\.\.(?P<count>\d+)\s*(?P<directive>#.*)?$")
WHY = 20  # lines before a failure
DIRECTIVE = re.compile(r"# *(?P<word>SKIP|TODO|XFAIL)\b", re.IGNORECASE)


@dataclasses.dataclass
class Counts:
    """How many tests passed, failed and were skipped, and what was wrong with their report."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    complaints: list[str] = dataclasses.field(default_factory=list)

    def complain(self, text: str) -> None:
        """Counts a fault of the report as a failed test."""
        self.failed += 1
        self.complaints.append(text)


@dataclasses.dataclass
class Level:
    """The results at one indentation, up to the result of the test they belong to."""

    indent: int
    planned: int | None = None
    seen: int = 0
    failed_before: int = 0  # all failures so far when this level began


def parse(output: str) -> Counts:
    """Counts the leaves of the tree of tests in `output`.

    A test with subtests counts only if it failed though they did not. A missing plan, or one that
    was not kept to, is a failure, and so is an output without any result. Lines that are not KTAP
    are passed over; comments before a failure say why.
    """
    counts = Counts()
    levels: list[Level] = []
    comments: list[str] = []

    def close(level: Level, where: str) -> None:
        if level.planned is None:
            counts.complain(f"no plan for {where}")
        elif level.planned != level.seen:
            counts.complain(f"{level.seen} of the {level.planned} planned results of {where}")

    for line in output.splitlines():
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if text.lower().startswith("bail out!"):
            counts.complain(text)
            continue
        plan, result = PLAN.match(text), RESULT.match(text)
        if not plan and not result:
            if text.startswith("# "):
                comments.append(text)
            continue
        why, comments = comments, []
        if not levels or levels[-1].indent < indent:
            levels.append(Level(indent, failed_before=counts.failed))
        if plan:
            if levels[-1].indent == indent:
                levels[-1].planned = int(plan["count"])
            if plan["count"] == "0" and plan["directive"]:
                counts.skipped += 1
            continue
        assert result
        name = result["name"].strip()
        child = None
        while levels and levels[-1].indent > indent:
            child = levels.pop()
            close(child, name)
        if not levels or levels[-1].indent != indent:
            levels.append(Level(indent, failed_before=counts.failed))
        level = levels[-1]
        level.seen += 1
        if result["number"] and int(result["number"]) != level.seen:
            counts.complain(f"result {result['number']} in place {level.seen}: {name}")
        if DIRECTIVE.search(name):
            if child is None:
                counts.skipped += 1
        elif result["no"]:
            if child is None or child.failed_before == counts.failed:
                counts.failed += 1
                counts.complaints += [f"not ok: {name}", *(f"  {line}" for line in why[-WHY:])]
        elif child is None:
            counts.passed += 1
    while len(levels) > 1:
        child = levels.pop()
        counts.complain("subtests without a result of the test they belong to")
        close(child, "these subtests")
    if levels:
        close(levels[0], "the whole")
    else:
        counts.complain("no results")
    return counts
