from __future__ import annotations

from osvdeploy.checks.finding import Severity
from osvdeploy.checks.links import check_dot_names, check_links
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import FileTree, TreeBuilder


def tree_of(links: dict[str, str]) -> FileTree:
    builder = TreeBuilder()
    for path, target in links.items():
        builder.add_symlink(path.encode(), target.encode(), origin="test")
    return builder.tree()


def test_links_that_osv_does_not_follow_are_told_together_with_their_cures() -> None:
    """One warning, whoever many there are: a root of a distribution has four."""
    (finding,) = check_links(tree_of({"/lib64": "usr/lib64", "/bin": "usr/bin", "/usr/a": ".libs/a", "/usr/b": "a"}))
    assert (finding.rule, finding.severity, finding.subject) == ("link-not-followed", Severity.WARNING, "/bin")
    assert "so are /lib64, /usr/a" in finding.what
    assert "/bin -> /usr/bin; /lib64 -> /usr/lib64; /usr/a -> ./.libs/a" in finding.cure


def test_links_as_osv_follows_them_are_not_told() -> None:
    """Absolute ones in `/`, relative ones below."""
    assert check_links(tree_of({"/lib64": "/usr/lib64", "/usr/a": "../b", "/usr/b": "lib/c"})) == []


def test_a_name_with_a_dot_in_the_working_directory_is_told() -> None:
    """Of the directory that cwd names, and nothing below it; in `/` OSv finds them."""
    tree = tree_of({"/app/.env": "x", "/app/.git/config": "x", "/app/sub/.x": "x", "/.env": "x", "/app/env": "x"})

    def told(*options: tuple[str, str | None]) -> list[tuple[str, str]]:
        return [(each.subject, each.why[-10:]) for each in check_dot_names(tree, BootCommand(options, (), ("/a",)))]

    assert told(("cwd", "/app/")) == told(("cwd", "/app")) == [("/app/.env", "r /app.env")]
    assert told(("cwd", "/app/sub"))[0][0] == "/app/sub/.x"
    assert told() == told(("cwd", "/")) == told(("cwd", "/app/.git")) == []
