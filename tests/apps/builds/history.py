# Prints a history for git fast-import: 3000 commits to 1500 files, with branches that are merged.
import random

random.seed(1)
words = [f"word{n}" for n in range(500)]
files = {}
mark = 0
out = []


def text(size):
    return "\n".join(" ".join(random.choices(words, k=8)) for _ in range(size)) + "\n"


def commit(branch, parent, merge, changes):
    global mark
    mark += 1
    message = f"Change {mark}"
    print(f"commit refs/heads/{branch}\nmark :{mark}\ncommitter T <t@example.org> {1700000000 + mark * 60} +0000")
    print(f"data {len(message)}\n{message}")
    if parent:
        print(f"from :{parent}")
    if merge:
        print(f"merge :{merge}")
    for name, content in changes:
        print(f"M 100644 inline {name}\ndata {len(content)}\n{content}")
    return mark


def change():
    name = f"d{random.randrange(30)}/e{random.randrange(5)}/f{random.randrange(10)}.txt"
    lines = files.get(name, "").splitlines(keepends=True) or text(40).splitlines(keepends=True)
    lines[random.randrange(len(lines))] = text(1)
    files[name] = "".join(lines)
    return name, files[name]


main = side = 0
for n in range(3000):
    changes = [change() for _ in range(random.randrange(1, 6))]
    if n % 10 == 5:
        side = commit(f"side{n // 300}", main, 0, changes)
    elif n % 10 == 9 and side:
        main, side = commit("main", main, side, changes), 0
    else:
        main = commit("main", main, 0, changes)
