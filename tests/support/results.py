#!/usr/bin/env python3
"""Counts test cases in JUnit files of ctest and pytest. usage: results.py FILE...

Prints "PASSED FAILED" over all files, then one line per failed case. A program written with cmocka
counts as its cases; one that died without a summary, or any other program, counts as one.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree

CMOCKA_PASSED = re.compile(r"\[  PASSED  \] (\d+) test\(s\)")
CMOCKA_FAILED = re.compile(r"\[  FAILED  \] (\d+) test\(s\)")
CMOCKA_NAMES = re.compile(r"^\[  FAILED  \] (\w+)$", re.M)


def failed(case):
    return case.find("failure") is not None or case.find("error") is not None


def count_case(case, failures):
    """(passed, failed) of one <testcase>."""
    name = f"{case.get('classname') or ''} {case.get('name')}".strip()
    if case.find("skipped") is not None and not failed(case):
        return 0, 0
    output = case.findtext("system-out") or ""
    good = sum(int(number) for number in CMOCKA_PASSED.findall(output))
    bad = sum(int(number) for number in CMOCKA_FAILED.findall(output))
    is_failed = failed(case) or case.get("status") == "fail"
    if bad:
        names = sorted(set(CMOCKA_NAMES.findall(output)))
        failures += [f"{case.get('name')}: {each}" for each in names] or [name]
    elif is_failed:
        bad = 1  # It crashed, or a sanitizer spoke, after whatever had passed.
        failures.append(name)
    if not good and not bad:
        good = 1
    return good, bad


def main(paths):
    passed_total = failed_total = 0
    failures = []
    for path in paths:
        try:
            tree = ElementTree.parse(path)
        except (OSError, ElementTree.ParseError) as problem:
            failed_total += 1
            failures.append(f"{path}: no results ({problem})")
            continue
        for case in tree.getroot().iter("testcase"):
            good, bad = count_case(case, failures)
            passed_total += good
            failed_total += bad
    print(passed_total, failed_total)
    for failure in failures:
        print(failure)


if __name__ == "__main__":
    main(sys.argv[1:])
