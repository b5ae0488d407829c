"""What should not go into production."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.checks.finding import Severity
from osvdeploy.checks.lint import CERTAIN, RULES, LintFacts, lint
from osvdeploy.checks.rules import RULES as ALL
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from osvdeploy.osv.kernel_facts import KernelFacts, KernelFormat
from tests.checks.known_kernels import MASTER

QUIET = (("power-off-on-abort", None), ("console", "serial"))
ROOT = ("/dev/", "/proc/", "/sys/", "/tmp/", "/etc/fstab")
FSTAB = b"/dev/vblk0.1 / rofs defaults 0 0\nramfs /tmp ramfs defaults 0 0\n# ramfs /no ramfs\n"


def tree(*paths: str) -> FileTree:
    builder = TreeBuilder()
    for path in paths:
        if path.endswith("/"):
            builder.add_directory(path.rstrip("/").encode(), origin="test")
        else:
            builder.add_content(path.encode(), b"", origin="test")
    return builder.tree()


def facts(*paths: str, root: bool = True, words: tuple[str, ...] = ("/app",), **changes: object) -> LintFacts:
    made = LintFacts(MASTER, BootCommand(QUIET, (), words), tree(*(ROOT if root else ()), *paths), fstab=FSTAB)
    return replace(made, **changes)  # type: ignore[arg-type]  # the caller names fields


def booting(*options: tuple[str, str | None]) -> BootCommand:
    return BootCommand(options, (), ("/app",))


def variable(name: str, value: str, *kinds: str) -> LintFacts:
    key = ("[image] env", name)
    return facts(variables={key: value}, variable_secrets={key: kinds})


CASES: dict[str, tuple[LintFacts, set[str]]] = {
    "nothing": (facts("/app"), set()),
    "cli": (facts("/cli", "/cli-app/"), {"command-line-shell"}),
    "uush": (facts(words=("/tools/uush.so",)), {"command-line-shell"}),
    "gate": (facts(gates=(("[deploy.production] gate lag", "./lag: is not there", "mend it"),)), {"gate-source"}),
    "hook": (facts(hooks=(("[deploy.production] hook smoke", "./smoke: is not there", "mend it"),)), {"hook-program"}),
    "rest api": (facts("/libhttpserver-api.so"), {"rest-api"}),
    "rest api, started": (facts(words=("/libhttpserver-api.so", "--access-allow=true")), {"rest-api"}),
    "rest api with TLS": (facts("/usr/mgmt/api/", words=("/libhttpserver-api.so", "--ssl")), set()),
    "rest api with TLS, for every page": (
        facts(words=("/libhttpserver-api.so", "--ssl", "--access-allow=true")),
        {"rest-api"},
    ),
    "vga by default": (facts(boot=booting(("power-off-on-abort", None))), {"vga-console"}),
    "vga": (facts(boot=booting(*QUIET[:1], ("console", "vga"))), {"vga-console"}),
    "no power off": (facts(boot=booting(("console", "serial"))), {"no-power-off-on-abort"}),
    "debug": (facts(kernel=replace(MASTER, debug=True)), {"debug-kernel"}),
    "no root": (facts("/app", root=False, fstab=None), {"bare-root", }),
    "no root, and a table": (facts("/app", root=False), {"bare-root", "mount-point"}),
    "mount point": (facts(boot=booting(*QUIET, ("mount-fs", "ramfs,none,/data"))), {"mount-point"}),
    "mount point that is a file": (
        facts("/data", boot=booting(*QUIET, ("mount-fs", "ramfs,none,/data"))),
        {"mount-point"},
    ),
    "mount point there": (facts("/data/", boot=booting(*QUIET, ("mount-fs", "ramfs,none,/data"))), set()),
    "written": (facts("/var/log/"), {"read-only-path"}),
    "written, mounted": (facts("/var/log/", boot=booting(*QUIET, ("mount-fs", "ramfs,none,/var/log"))), set()),
    "written, mounted above": (facts("/var/log/", boot=booting(*QUIET, ("mount-fs", "ramfs,none,/var"))), set()),
    "another file system": (facts("/var/log/", root=False, fs="zfs", fstab=None), set()),
    "secret by content": (facts("/k", secrets={b"/k": [("Private Key", 1)]}), {"secret-in-file"}),
    "secret by name": (facts("/srv/.env"), {"secret-file-name"}),
    "variable by name": (variable("DB_PASSWORD", "hunter2"), {"secret-in-env"}),
    "variable by value": (variable("URL", "postgres://a:b@c", "Basic Auth Credentials"), {"secret-in-env"}),
    "harmless variable": (variable("TOKENIZER", "fast"), set()),
    "empty variable": (variable("DB_PASSWORD", ""), set()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule_finds_what_it_is_for(case: str) -> None:
    """And nothing else speaks; each finding is whole."""
    given_facts, expected = CASES[case]
    found = lint(given_facts)
    assert {finding.rule for finding in found} == expected
    for finding in found:
        assert all((finding.subject, finding.what, finding.why, finding.cure, finding.source)), finding


def test_every_rule_is_shown_and_known() -> None:
    """By a case, and by name among all rules."""
    assert set().union(*(expected for _, expected in CASES.values())) == set(RULES) <= set(ALL)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/.env", "/srv/.env.production", "/root/.ssh/id_ed25519", "/x/.npmrc", "/.netrc", "/a/.pgpass", "/a/b.kdbx",
        "/t/terraform.tfstate", "/home/me/.aws/credentials", "/.kube/config", "/.docker/config.json", "/app/.git/",
    ],
)  # fmt: skip
def test_names_of_secrets(path: str) -> None:
    """What is known to hold them, wherever it lies."""
    assert [finding.rule for finding in lint(facts(path))] == ["secret-file-name"]


@pytest.mark.parametrize("path", ["/srv/.env.example", "/root/.ssh/id_rsa.pub", "/app/env.py", "/etc/ssl/cert.pem"])
def test_names_of_no_secrets(path: str) -> None:
    """Examples, public keys and certificates are none."""
    assert lint(facts(path)) == []


def test_a_repository_is_told_once() -> None:
    """Not each of its thousand files."""
    found = lint(facts("/app/.git/config", "/app/.git/objects/aa/.env", "/app/.env"))
    assert sorted(finding.subject for finding in found) == ["/app/.env", "/app/.git"]


def test_files_with_one_kind_of_secret_are_told_together() -> None:
    """By name, and how many there are."""
    (found,) = lint(facts(secrets={f"/{number}".encode(): [("GitHub Token", number)] for number in range(1, 10)}))
    assert found.subject == "/1"
    assert "in line 1; so do /2, /3, /4, /5, /6 and 3 more" in found.what


def test_only_what_is_certain_refuses() -> None:
    """Private keys and clouds' credentials; other tokens warn."""
    severities = {
        kind: lint(facts("/k", secrets={b"/k": [(kind, 3), (kind, 9)]}))[0].severity
        for kind in (*CERTAIN, "GitHub Token")
    }
    assert severities == {**dict.fromkeys(CERTAIN, Severity.ERROR), "GitHub Token": Severity.WARNING}


@given(st.sampled_from(sorted(CASES)))
def test_what_is_not_told_is_silent(case: str) -> None:
    """Of a payload that is no OSv, or tells nothing, only files and variables are judged; nothing is refused for it."""
    known, _ = CASES[case]
    blank = KernelFacts(KernelFormat.LOADER_IMAGE, "x86_64", 1)
    for kernel in (None, blank):
        rules = {finding.rule for finding in lint(replace(known, kernel=kernel))}
        assert rules <= {
            "command-line-shell",
            "gate-source",
            "hook-program",
            "rest-api",
            "secret-file-name",
            "secret-in-env",
            "secret-in-file",
        }
