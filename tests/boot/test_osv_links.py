"""A real OSv follows links as osvdeploy.osv.links says it does.

Needs OSV_KERNEL, the path of a loader.img that OSv's own build made, and a C compiler.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from osvdeploy.checks.links import check_dot_names
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import Directory, FileTree, Symlink, TreeBuilder
from osvdeploy.osv.links import followed, unfollowed
from tests.boot.qemu import needs_qemu
from tests.boot.real import POWER_OFF, compiled, console_of

pytestmark = [pytest.mark.osv, needs_qemu]

OPEN_ALL = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void)
{
    char path[4096], text[4096];
    struct stat status;
    FILE *paths = fopen("/paths", "r");
    while (paths && fgets(path, sizeof path, paths)) {
        path[strcspn(path, "\n")] = 0;
        int file = open(path, O_RDONLY);
        if (file < 0 || fstat(file, &status))
            strcpy(text, "nothing");
        else if (S_ISDIR(status.st_mode))
            strcpy(text, "directory");
        else
            text[read(file, text, sizeof text - 1)] = 0;
        printf("%s = %s\n", path, text);
        if (file >= 0)
            close(file);
    }
    puts("end");
    return 0;
}
"""

FOLDERS = ("", "/d", "/d/sub", "/e", "/e/.hidden")
FILES = tuple(f"{folder}/{name}" for folder in FOLDERS for name in ("f", ".f"))
NAMES = ("a", "b", ".a", "..a", "d", "e", "f", ".f", "sub", ".hidden", "..", ".", "")


def random_links(rng: random.Random, count: int) -> dict[str, str]:
    """Links in all folders, with targets of every kind; some lead to others, some nowhere."""
    links = {}
    for number in range(count):
        names = [rng.choice(NAMES) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.3:
            names.append(f"l{rng.randrange(count)}")
        target = rng.choice(["", "/", "/d/", "../"]) + "/".join(names)
        links[f"{rng.choice(FOLDERS)}/l{number}"] = target or "."
    return links


def tree_of(links: dict[str, str], program: Path, paths: list[str]) -> FileTree:
    builder = TreeBuilder()
    builder.add_file(b"/app", os.fsencode(program))
    builder.add_content(b"/paths", "".join(f"{path}\n" for path in paths).encode(), origin="test")
    for path in FILES:
        builder.add_content(path.encode(), path.encode(), origin="test")
    for path, target in links.items():
        builder.add_symlink(path.encode(), target.encode(), origin="test")
    return builder.tree()


def expected(tree: FileTree, path: str) -> str:
    def look(name: bytes) -> bytes | bool | None:
        entry = tree.entries.get(name)
        return entry.target if isinstance(entry, Symlink) else None if entry is None else isinstance(entry, Directory)

    found = followed(path.encode(), look)
    if found is None:
        return f"{path} = nothing"
    return f"{path} = " + ("directory" if isinstance(tree.entries[found], Directory) else found.decode())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_real_osv_follows_links_as_they_are_modelled(seed: int, tmp_path: Path) -> None:
    """300 links of every kind, each opened, and paths over each; and the same with every cure."""
    program = compiled(OPEN_ALL, tmp_path)
    links = random_links(random.Random(seed), 300)
    links |= {f"/d/c{count}": f"c{count + 1}" for count in range(25)} | {"/d/c25": "f"}
    paths = [path + behind for path in links for behind in ("", "/f", "/sub/f", "/l1", "/l2/f")]
    tree = tree_of(links, program, paths)
    mended = links | {each.path.decode(): each.cure.decode() for each in unfollowed(tree)}
    for each in (tree, tree_of(mended, program, paths)):
        console = console_of(each, BootCommand(POWER_OFF, (), ("/app",)), tmp_path)
        said = console.decode().replace("\r", "").splitlines()
        assert said[-1] == "end"
        assert [line for line in said if line.startswith("/")] == [expected(each, path) for path in paths]


@pytest.mark.parametrize(("cwd", "found"), [("/d", False), ("/", True)])
def test_a_name_with_a_dot_is_not_found_in_another_directory_than_the_root(
    cwd: str, found: bool, tmp_path: Path
) -> None:
    """Unless a dot and a slash stand in front; the rule says so."""
    program = compiled(OPEN_ALL.replace('"/paths"', '"paths"'), tmp_path)
    builder = TreeBuilder()
    builder.add_file(b"/app", os.fsencode(program))
    for folder in (b"/", b"/d/"):
        builder.add_content(folder + b"paths", b".env\n./.env\n", origin="test")
        builder.add_content(folder + b".env", b"found", origin="test")
    tree, command = builder.tree(), BootCommand((*POWER_OFF, ("cwd", cwd)), (), ("/app",))
    said = console_of(tree, command, tmp_path).decode().replace("\r", "").splitlines()
    assert said[-3:] == [f".env = {'found' if found else 'nothing'}", "./.env = found", "end"]
    assert [each.rule for each in check_dot_names(tree, command)] == ([] if found else ["dot-name"])
