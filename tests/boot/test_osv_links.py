"""A real OSv follows links as osvdeploy.osv.links says it does.

Needs OSV_KERNEL, the path of a loader.img that OSv's own build made, and a C compiler.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from osvdeploy.demo.toolchain import compile_program, find_compilers
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import compose
from osvdeploy.osv.filetree import Directory, FileTree, Symlink, TreeBuilder
from osvdeploy.osv.kernel import read_kernel
from osvdeploy.osv.links import followed, unfollowed
from osvdeploy.osv.rofs import lay_out
from tests.boot.qemu import boot, needs_qemu

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
    kernel = os.environ.get("OSV_KERNEL")
    if not kernel:
        pytest.skip("OSV_KERNEL is not set: name a loader.img of OSv (build/last/loader.img) to boot a real one")
    compilers = find_compilers()
    if not compilers:
        pytest.skip("no C compiler: neither cc nor the PyPI package ziglang")
    source = tmp_path / "open.c"
    source.write_text(OPEN_ALL)
    program = compile_program([source], tmp_path / "app", compiler=compilers[0])
    links = random_links(random.Random(seed), 300)
    links |= {f"/d/c{count}": f"c{count + 1}" for count in range(25)} | {"/d/c25": "f"}
    paths = [path + behind for path in links for behind in ("", "/f", "/sub/f", "/l1", "/l2/f")]
    tree = tree_of(links, program, paths)
    mended = links | {each.path.decode(): each.cure.decode() for each in unfollowed(tree)}
    for each in (tree, tree_of(mended, program, paths)):
        disk = tmp_path / "disk.raw"
        compose(disk, read_kernel(Path(kernel)), lay_out(each), BootCommand((), (), ("/app",)))
        with boot(disk, memory=256, interface="virtio", arguments=["-cpu", "max"]) as machine:
            said = machine.wait_until_off().decode().replace("\r", "").splitlines()
        assert said[-1] == "end"
        assert [line for line in said if line.startswith("/")] == [expected(each, path) for path in paths]
        disk.unlink()
