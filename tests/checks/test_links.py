from __future__ import annotations

from osvdeploy.checks.finding import Severity
from osvdeploy.checks.links import check_links
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
