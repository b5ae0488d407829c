"""Boot options by OSv's own names."""

from __future__ import annotations

import pytest

from osvdeploy.spec.boot import OPTIONS, boot_options, worded_options, wrong_options


def test_options_keep_their_order_and_flags_have_no_value() -> None:
    """A true flag stands alone, a false one is left out, an array becomes one option for each element."""
    declared = {
        "verbose": True,
        "nopci": False,
        "mount-fs": ["ramfs,none,/a", "ramfs,none,/b"],
        "delay": 2,
        "cwd": "/x",
    }

    assert not list(wrong_options(declared))
    assert boot_options(declared) == (
        ("verbose", None),
        ("mount-fs", "ramfs,none,/a"),
        ("mount-fs", "ramfs,none,/b"),
        ("delay", "2"),
        ("cwd", "/x"),
    )


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"verbsoe": True}, "no boot option of OSv (did you mean 'verbose'?); allowed: bootchart, console"),
        ({"assign-net": True}, "stands in OSv's help, but OSv powers off on it"),
        ({"env": "A=B"}, 'belongs to [image], as env = { NAME = "value" }'),
        ({"rootfs": "zfs"}, 'follows from fs in [image]; only "rofs" can stand here'),
        ({"help": True}, "no boot option of OSv"),
        ({"verbose": "true"}, "takes true or false, not 'true'"),
        ({"verbose": 1}, "takes true or false, not 1"),
        ({"cwd": True}, "takes a string, not True"),
        ({"cwd": ""}, "takes a string, not ''"),
        ({"cwd": ["/a", "/b"]}, "takes a string, not an array"),
        ({"maxnic": 1.5}, "takes a whole number, 1 or more, not 1.5"),
        ({"maxnic": 0}, "takes a whole number, 1 or more, not 0"),
        ({"sampler": 1 << 20000}, "takes a whole number, 1 or more, not a number that large"),
        ({"delay": -1}, "from 0 to 3600 seconds"),
        ({"delay": float("nan")}, "from 0 to 3600 seconds"),
        ({"delay": True}, "takes a number of seconds, not True"),
        ({"console": "com1"}, "'com1' is none of serial, vga, all; OSv aborts on another"),
        ({"ip": "eth0,10.0.0.2"}, "takes interface,address,netmask, not 'eth0,10.0.0.2'"),
        ({"mount-fs": ["ramfs,none,/a", "ramfs,/b"]}, "takes type,device,directory, not 'ramfs,/b'"),
        ({"mount-fs": []}, "takes a string or an array of strings, not an array"),
        ({"trace": [5]}, "takes a string or an array of strings, not an array"),
        ({"nameserver": "10.0.0.1"}, "OSv looks at it only together with ip"),
        ({"strace": True}, "OSv looks at it only together with trace"),
        ({"verbose": {"a": 1}}, "takes true or false, not a table"),
    ],
)
def test_what_osv_would_power_off_abort_or_do_nothing_on_is_refused(declared: dict[str, object], told: str) -> None:
    """OSv prints its usage and powers off on what it does not know: here it is an error before anything is built."""
    problems = list(wrong_options(declared))

    assert [name for name, _ in problems] == list(declared)
    assert problems[0][1].startswith(told), problems


def test_every_problem_is_found() -> None:
    """One bad option does not hide the next."""
    assert [name for name, _ in wrong_options({"x": 1, "verbose": True, "cwd": 5})] == ["x", "cwd"]


def test_options_that_need_another_are_taken_with_it() -> None:
    """A resolver is used with a static address, a backtrace with a trace."""
    declared = {"ip": "eth0,10.0.0.2,255.0.0.0", "defaultgw": "10.0.0.1", "trace": "sched*", "strace": True}

    assert not list(wrong_options(declared))
    assert set(declared) <= set(OPTIONS)


def test_words_are_a_table_with_its_types() -> None:
    """As on a command line: a name alone is a flag, a number is a number, what repeats gathers, the last of the others
    counts."""
    words = ["verbose", "nopci=false", "delay=0.5", "maxnic=2", "cwd=/a", "cwd=/b=c"]
    words += ["trace=sched*", "trace=vfs*"]
    table = worded_options(words)
    assert table == {
        "verbose": True,
        "nopci": False,
        "delay": 0.5,
        "maxnic": 2,
        "cwd": "/b=c",
        "trace": ["sched*", "vfs*"],
    }
    assert not list(wrong_options(table))


@pytest.mark.parametrize("word", ["", "=", "verbose=1", "delay=soon", "delay=nan", "maxnic=0", "cwd", "cwd=", "trace"])
def test_words_that_no_option_takes_are_refused(word: str) -> None:
    """By the same check as a spec's."""
    assert len(list(wrong_options(worded_options([word])))) == 1
