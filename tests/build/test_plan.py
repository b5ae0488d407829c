from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.build.plan import FileMapping, file_tree
from osvdeploy.build.surroundings import SURROUNDINGS
from osvdeploy.errors import FileTreeInvalid
from osvdeploy.events import Warned
from osvdeploy.osv.filetree import Symlink
from tests.build.projects import Project


def paths(project: Project, *mappings: FileMapping) -> list[str]:
    """Guest paths of the files and links (not directories) that the mappings give, beside what every image has."""
    tree = file_tree(replace(project.inputs, files=mappings))
    return [
        path.decode()
        for path, entry in tree.entries.items()
        if (hasattr(entry, "size") or isinstance(entry, Symlink)) and path not in SURROUNDINGS
    ]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (FileMapping("build/hello", "/hello"), ["/hello"]),
        (FileMapping("build/hello", "/bin/"), ["/bin/hello"]),
        (FileMapping("build", "/"), ["/hello"]),
        (FileMapping("build/", "/opt"), ["/opt/hello"]),
        (FileMapping("web/js", "/js/", ("*.map",)), ["/js/app.js"]),
        (FileMapping("web/*.html", "/srv/"), ["/srv/index.html"]),
        (FileMapping("web/*.html", "/page"), ["/page"]),
        (FileMapping("web/*/*.js", "/srv/"), ["/srv/js/app.js"]),
        (FileMapping("web/**/*.js", "/srv/"), ["/srv/js/app.js"]),
        (FileMapping("web/**/*.html", "/srv/"), ["/srv/index.html"]),
        (FileMapping("*/hello", "/"), ["/build/hello"]),
        (FileMapping("web/j?", "/"), ["/js/app.js", "/js/app.js.map"]),
        (FileMapping("web/?", "/"), ["/ü"]),
        (FileMapping("web/[hi]*", "/"), ["/home", "/index.html"]),
        (FileMapping("web/**", "/", (".git", "js")), ["/home", "/index.html", "/ü"]),
        (FileMapping("web/**", "/", ("js/*.map", ".*")), ["/home", "/index.html", "/js/app.js", "/ü"]),
        (FileMapping("web", "/", ("**/app*", ".git/**")), ["/home", "/index.html", "/ü"]),
        (FileMapping("web", "/", ("*/*",)), ["/home", "/index.html", "/ü"]),
    ],
)
def test_a_mapping_puts_its_files_where_it_says(project: Project, mapping: FileMapping, expected: list[str]) -> None:
    """A file goes to its path or into the directory; a directory's content goes below; a pattern keeps directories."""
    assert paths(project, mapping) == expected


def test_a_name_with_a_bracket_is_a_name_where_it_exists(project: Project) -> None:
    """What is there under just that name is not taken for a pattern."""
    project.write("web/[id].js", "page")
    assert paths(project, FileMapping("web/[id].js", "/")) == ["/[id].js"]


def test_an_absolute_source_is_taken_as_it_is(project: Project, tmp_path: Path) -> None:
    """Sources may lie outside of the spec's folder when they are named so."""
    other = tmp_path / "elsewhere"
    other.write_text("x")
    assert paths(project, FileMapping(str(other), "/x")) == ["/x"]
    assert paths(project, FileMapping(str(tmp_path / "else*"), "/")) == ["/elsewhere"]


@pytest.mark.parametrize(
    ("mappings", "says"),
    [
        ([FileMapping("web/*.css", "/")], r"from = 'web/\*\.css': matches nothing"),
        ([FileMapping("nowhere/**", "/")], "matches nothing"),
        ([FileMapping("web/*.html", "/", ("*",))], "matches nothing"),
        ([FileMapping("missing", "/m")], "no such file or directory"),
        ([FileMapping("build/hello", "hello")], r"to = 'hello': not an absolute path \(from = 'build/hello'\)"),
        ([FileMapping("web/*", "/one")], r"one path for all that 'web/\*' matches: \.git, home, index\.html, \.\.\."),
        ([FileMapping("web/j*", "/one")], "one path for all"),
        ([FileMapping("build/hello", "/h", ("*.o",))], "`exclude` can leave nothing out"),
        ([FileMapping("web/[ü-z]", "/")], "range"),
        (
            [FileMapping("build/hello", "/h"), FileMapping("web/ü", "/h")],
            "/h: given twice: a file, from .*/build/hello",
        ),
    ],
)
def test_a_mapping_that_means_nothing_is_refused(project: Project, mappings: list[FileMapping], says: str) -> None:
    """Each error names the line of the spec as it was written, or both sides."""
    with pytest.raises(FileTreeInvalid, match=says):
        paths(project, *mappings)


def test_overlapping_mappings_of_the_same_file_agree(project: Project) -> None:
    """The same source for the same path, twice, is one file."""
    assert paths(project, FileMapping("web/js", "/js"), FileMapping("web/js/*.js", "/js/")) == [
        "/js/app.js",
        "/js/app.js.map",
    ]


def test_a_link_that_a_pattern_finds_may_not_leave_its_tree(project: Project) -> None:
    """A link found by a pattern is judged as one in a directory is."""
    (project.root / "web/out").symlink_to("../build/hello")
    with pytest.raises(FileTreeInvalid, match=r"web/out: a link to \.\./build/hello, which leaves"):
        paths(project, FileMapping("web/o*", "/"))


def test_names_that_are_no_text_are_found(project: Project) -> None:
    """A pattern matches bytes that are no UTF-8 too."""
    (project.root / "odd").mkdir()
    (project.root / "odd" / "a\udcff.bin").write_text("x")
    tree = file_tree(replace(project.inputs, files=(FileMapping("odd/*?.bin", "/"),)))
    assert b"/a\xff.bin" in tree.entries


def test_a_plan_warns_of_a_missing_program(project: Project) -> None:
    """The warning comes with the build, before anything is published."""
    project.build(command=("/bin/hello",))
    assert [event.text for event in project.events if isinstance(event, Warned)] == [
        "command: /bin/hello is not among the image's files; OSv would power off at once"
    ]
    project.events.clear()
    project.build()
    assert not any(isinstance(event, Warned) for event in project.events)


def test_a_plan_warns_of_a_program_that_is_missing_to_init(project: Project) -> None:
    """What a file of /init starts is started before the command line's program, and ends OSv as well."""
    project.write("init", "/metrics &!")
    project.build(files=(*project.inputs.files, FileMapping("init", "/init/10-metrics")))
    assert [event.text for event in project.events if isinstance(event, Warned)] == [
        "/init/10-metrics: /metrics is not among the image's files; OSv would power off at once"
    ]
