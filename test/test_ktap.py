# SPDX-License-Identifier: GPL-2.0
"""Tests of ktap.py."""

import unittest

import ktap


def counts(output: str) -> tuple[int, int, int]:
    """Passed, failed, skipped."""
    found = ktap.parse(output)
    return found.passed, found.failed, found.skipped


class Flat(unittest.TestCase):
    """One level of tests."""

    def test_results(self) -> None:
        output = "KTAP version 1\n1..3\nok 1 one\nnot ok 2 - two\nok 3 three # SKIP no disk\n"
        self.assertEqual(counts(output), (1, 1, 1))

    def test_noise_is_passed_over(self) -> None:
        output = "okay\n# ok 1 not this\nTAP version 13\n1..1\nhello\nok 1\n[ 1.0] ok 2 dmesg\n"
        self.assertEqual(counts(output), (1, 0, 0))

    def test_plan_at_the_end(self) -> None:
        self.assertEqual(counts("ok 1 a\nok 2 b\n1..2\n"), (2, 0, 0))

    def test_missing_plan(self) -> None:
        self.assertEqual(counts("KTAP version 1\nok 1 one\n"), (1, 1, 0))

    def test_too_few(self) -> None:
        self.assertEqual(counts("1..2\nok 1 one\n"), (1, 1, 0))

    def test_too_many(self) -> None:
        self.assertEqual(counts("1..1\nok 1 one\nok 2 two\n"), (2, 1, 0))

    def test_out_of_order(self) -> None:
        self.assertEqual(counts("1..2\nok 2 two\nok 2 two\n"), (2, 1, 0))

    def test_nothing(self) -> None:
        self.assertEqual(counts(""), (0, 1, 0))
        self.assertEqual(counts("Segmentation fault\n"), (0, 1, 0))

    def test_empty_plan(self) -> None:
        self.assertEqual(counts("1..0 # SKIP nothing to do\n"), (0, 0, 1))

    def test_bail_out(self) -> None:
        self.assertEqual(counts("1..1\nok 1 one\nBail out! no device\n"), (1, 1, 0))

    def test_expected_failure(self) -> None:
        self.assertEqual(counts("1..1\nnot ok 1 one # XFAIL known\n"), (0, 0, 1))


class Nested(unittest.TestCase):
    """Tests with subtests."""

    def test_leaves_count(self) -> None:
        output = (
            "KTAP version 1\n1..2\n"
            "  KTAP version 1\n  1..2\n  ok 1 a\n  ok 2 b\nok 1 first\n"
            "  KTAP version 1\n  1..1\n    1..1\n    not ok 1 deep\n  not ok 1 c\nnot ok 2 second\n"
        )
        self.assertEqual(counts(output), (2, 1, 0))

    def test_parent_fails_alone(self) -> None:
        self.assertEqual(counts("1..1\n  1..1\n  ok 1 a\nnot ok 1 tear-down\n"), (1, 1, 0))

    def test_parent_passes_with_a_failed_child(self) -> None:
        self.assertEqual(counts("1..1\n  1..1\n  not ok 1 a\nok 1 parent\n"), (0, 1, 0))

    def test_child_plan(self) -> None:
        self.assertEqual(counts("1..1\n  1..2\n  ok 1 a\nok 1 parent\n"), (1, 1, 0))
        self.assertEqual(counts("1..1\n  ok 1 a\nok 1 parent\n"), (1, 1, 0))

    def test_no_result_of_the_parent(self) -> None:
        self.assertEqual(counts("1..1\n  1..1\n  ok 1 a\n"), (1, 2, 0))

    def test_comments_say_why(self) -> None:
        output = (
            "1..1\n  1..3\n  # fine\n  ok 1 a\n  # bytes: 1, not 2\n  not ok 2 b\n  ok 3 c\n"
            "# 1 of 3 failed\nnot ok 1 parent\n"
        )
        self.assertEqual(ktap.parse(output).complaints, ["not ok: b", "  # bytes: 1, not 2"])

    def test_child_level_begins_with_its_plan(self) -> None:
        self.assertEqual(counts("    1..1\n    ok 1 a\nok 1 parent\n1..1\n"), (1, 0, 0))


if __name__ == "__main__":
    unittest.main()
