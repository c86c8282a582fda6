#!/usr/bin/env python3
"""layout.py INCLUDE-DIR: the structures in tools/python/hashtrie.py lie in memory as the headers say."""
import ctypes
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))
sys.dont_write_bytecode = True

import hashtrie  # noqa: E402

LIMITS = {"HASHTRIE_HOLDERS_MAX": hashtrie._HOLDERS_MAX,
          "HASHTRIE_ENDPOINTS_MAX": hashtrie._ENDPOINTS_MAX,
          "HASHTRIE_ENDPOINT_TEXT_MAX": hashtrie._ENDPOINT_BYTES_MAX,
          "HASHTRIE_CHUNK_COUNT_MAX": hashtrie._CHUNK_COUNT_MAX,
          "HASHTRIE_ENTRY_AGE_MAX_S": hashtrie._AGE_MAX_S,
          "-HASHTRIE_EFULL": -hashtrie._EFULL, "HASHTRIE_EVENT_INFO": len(hashtrie._LEVELS) - 1}


def has_room(structure):
    return structure._fields_[-1][0] == "room"


def expected():
    """What C says -> what Python has; with room, the size in C is an upper bound here."""
    for name, value in LIMITS.items():
        yield f"(unsigned long)({name})", value
    for name, structure in hashtrie._STRUCTURES.items():
        for field, *_ in structure._fields_:
            if field != "room":
                place = getattr(structure, field)
                yield f"offsetof(struct {name}, {field})", place.offset
                yield f"sizeof(((struct {name} *)0)->{field})", place.size
        size = ctypes.sizeof(structure)
        yield (f"sizeof(struct {name})" if not has_room(structure) else
               f"(sizeof(struct {name}) <= {size} ? {size} : sizeof(struct {name}))"), size


def main():
    pairs = list(expected())
    lines = "".join(f'    printf("%lu\\n", (unsigned long){text});\n' for text, _ in pairs)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "layout.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write("#include <hashtrie/hashtrie.h>\n#include <stddef.h>\n#include <stdio.h>\n"
                       f"int main(void)\n{{\n{lines}    return 0;\n}}\n")
        subprocess.run(["cc", "-I", sys.argv[1], "-o", folder + "/layout", source], check=True)
        found = subprocess.run([folder + "/layout"], check=True, stdout=subprocess.PIPE, text=True)
    wrong = [f"{text} is {number} in C and {value} in tools/python/hashtrie.py"
             for (text, value), number in zip(pairs, map(int, found.stdout.split()))
             if number != value]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
