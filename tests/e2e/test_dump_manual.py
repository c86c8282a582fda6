"""The manual pages and the shell completion say what hashtrie-dump takes, and nothing else."""
import os
import re
import shutil
import subprocess

import pytest

from harness import binary

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools")
MANUAL = os.path.join(TOOLS, "man", "hashtrie-dump.1")
COMPLETION = os.path.join(TOOLS, "completions", "hashtrie-dump.bash")


def help_of(*arguments):
    return subprocess.run([binary("hashtrie-dump"), *arguments, "--help"], check=True,
                          capture_output=True, text=True, timeout=30).stdout


def commands():
    listed = help_of().split("commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines()]


def options_of(command):
    return set(re.findall(r"^  (--[a-z-]+)", help_of(command).split("options:\n")[1], re.M))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def complete(*words):
    script = f'. "{COMPLETION}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hashtrie_dump; ' \
             'printf "%s\\n" "${COMPREPLY[@]}"'
    run = subprocess.run(["bash", "-eu", "-c", script, "bash", "hashtrie-dump", *words],
                         check=True, capture_output=True, text=True, timeout=30)
    assert run.stderr == ""
    return set(run.stdout.split())


def test_manual_has_every_command_and_option():
    manual = read(MANUAL)
    assert set(re.findall(r"^\.It Cm (\w+)", manual, re.M)) == set(commands())
    listed = set(re.findall(r"^\.It Fl -([a-z-]+)", manual, re.M))
    assert {f"--{name}" for name in listed} == {"--version"}.union(*map(options_of, commands()))
    for command in commands():
        shown = " ".join(re.findall(rf"^\.It Cm {command} .*$", manual, re.M))
        assert {f"--{name}" for name in re.findall(r"Fl -([a-z-]+)", shown)} == options_of(
            command) - {"--help"}, command


@pytest.mark.parametrize("page", ["hashtrie-dump.1", "hashtrie-router.8"])
def test_manuals_are_well_formed(page, tmp_path):
    path = MANUAL
    if page == "hashtrie-router.8":
        path = tmp_path / page
        path.write_bytes(subprocess.run([os.path.join(TOOLS, "man", "router-man"),
                                         binary("hashtrie-router")], check=True, timeout=30,
                                        stdout=subprocess.PIPE).stdout)
        text = read(path)
        flags = subprocess.run([binary("hashtrie-router"), "--help"], check=True, text=True,
                               stdout=subprocess.PIPE, timeout=30).stdout
        assert set(re.findall(r"^\.It Fl -([a-z-]+)", text, re.M)) == set(
            re.findall(r"^  --([a-z-]+)", flags, re.M))
    checked = False
    if shutil.which("mandoc"):
        run = subprocess.run(["mandoc", "-Tlint", "-Wwarning", path], capture_output=True,
                             text=True, timeout=30, check=False)
        assert run.stdout == "" and run.returncode == 0, run.stdout
        checked = True
    if shutil.which("groff"):
        run = subprocess.run(["groff", "-ww", "-mandoc", "-Tascii", "-z", path],
                             capture_output=True, text=True, timeout=30, check=False)
        if "cannot load" not in run.stderr and "can't find macro" not in run.stderr:
            assert run.stderr == ""
            checked = True
    if not checked:
        pytest.skip("neither mandoc nor groff with its macros is installed")


def test_completion_knows_every_command_and_option(tmp_path):
    assert complete("") == set(commands())
    assert complete("st") == {"stats"}
    assert complete("-") == {"--help", "--version"}
    for command in commands():
        assert complete(command, "--") == options_of(command), command
        assert complete("--json", command, "--he") == {"--help"}
    assert complete("tree", "--top", "5", "--by", "") == {"recency", "bytes", "holders"}
    assert complete("tree", "--depth", "") == set()
    (tmp_path / "folder").mkdir()
    assert complete("stats", f"{tmp_path}/fo") == {f"{tmp_path}/folder"}
    assert complete("verify", "--repair", f"{tmp_path}/fo") == {f"{tmp_path}/folder"}
