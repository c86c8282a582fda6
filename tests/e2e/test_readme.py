"""README.md says what the programs say: options, defaults, outcomes."""
import os
import re
import subprocess

from harness import binary

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return file.read()


def help_options():
    text = subprocess.run([binary("hashtrie-router"), "--help"], check=True, capture_output=True,
                          text=True).stdout
    return re.findall(r"^  (--[a-z0-9-]+|[A-Z_]+ \(variable only\))", text, re.M)


def test_every_option_stands_in_the_table():
    text = readme()
    named = help_options()
    assert len(named) > 20
    for option in named:
        name = option.split()[0]
        assert re.search(rf"^\| .*`{re.escape(name)}[ `]", text, re.M), name


def test_the_table_names_no_option_that_is_not_there():
    table = re.findall(r"^\| `(--[a-z0-9-]+)", readme(), re.M)
    named = {option.split()[0] for option in help_options()}
    assert table and set(table) <= named


def test_flags_of_the_python_router_are_told():
    text = subprocess.run([binary("hashtrie-router"), "--help"], check=True, capture_output=True,
                          text=True).stdout
    flags = re.findall(r"--[a-z0-9-]+", text[text.index("Of the Python router"):])
    assert len(flags) > 20
    assert [flag for flag in flags if f"`{flag}" not in readme()] == []
