"""A source tree that looks like OSv's and builds nothing: for everything that can be said of trees without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

KCONFIG = """\
config preempt
  prompt "Enable preemption"
  def_bool y

config lazy_stack
  prompt "Use lazy stack"
  bool
  default n

config tracepoints
  bool
  default y

config tracepoints_strace
  depends on tracepoints
  bool
  default y

config memory_l1_pool_size
  int
  default 512

config core_debug_buffer_size
  hex
  default 0xc800

config compiler_opt
  string
  default " -O2"
"""

MAKEFILE = """\
conf_zfs ?= bsd
conf_drivers_profile?=all
ifeq ($(conf_drivers_nvme),1)
endif
app_local_exec_tls_size := 0x200
"""

CONF_MAKEFILE = """\
$(or $(out),build/$(mode).$(arch))/kbuild/kconfig/conf: kbuild/conf
	@mkdir -p $(dir $@)
	@cp kbuild/conf $@
"""

# What `conf --alldefconfig` does with a Kconfig of the shape above.
CONF = """\
import os, re
text = open("conf/kconfig/core").read()
wished = open(os.environ["KCONFIG_ALLCONFIG"]).read()
made = {}
for name, body in re.findall(r"config (\\w+)\\n(.*?)(?=\\nconfig |\\Z)", text, re.S):
    found = re.search(r"(?:default|def_bool) (.*)", body)
    value = found[1] if found else "n"
    asked = re.search(rf"^CONF_{name}=(.*)$", wished, re.M)
    value = asked[1] if asked else "n" if f"# CONF_{name} is not set" in wished else value
    needs = re.search(r"depends on (\\w+)", body)
    made[name] = "n" if needs and made[needs[1]] == "n" else value
with open(os.environ["KCONFIG_CONFIG"], "w") as file:
    for name, value in made.items():
        file.write(f"# CONF_{name} is not set\\n" if value == "n" else f"CONF_{name}={value}\\n")
"""

TOOLS = ("g++", "ld", "qemu-nbd", "qemu-system-x86_64", "mkfs.ext4", "losetup", "lsblk", "mount", "sudo")


@dataclass(frozen=True, slots=True)
class FakeTree:
    """A tree, and a directory with the tools that a build looks for; ``tools`` belongs in front of PATH."""

    path: Path
    tools: Path

    @property
    def output(self) -> Path:
        return self.path / "build" / "release.x64"

    def fault(self, what: str) -> None:
        """What the next builds are to suffer; empty: nothing."""
        (self.path / "build").mkdir(exist_ok=True)
        (self.path / "build" / "fault").write_text(what)

    def write(self, name: str, content: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def git(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"}
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a change", "--allow-empty")
        return self.git("rev-parse", "HEAD")


def make_tree(path: Path, *, kconfig: bool = True, git: bool = True) -> FakeTree:
    """A tree at ``path``, its tools beside. Without Kconfig it is of v0.57.0's kind."""
    tree = FakeTree(path, path.with_name(path.name + "-tools"))
    script = f'#!/bin/sh\nexec {sys.executable} {HERE / "fake_scripts_build.py"} "$@"\n'
    tree.write("scripts/build", script + "# app_local_exec_tls_size usrskel\n")
    (path / "scripts" / "build").chmod(0o755)
    tree.write("scripts/module.py", "")
    tree.write("static/etc/fstab_rofs", "none /tmp ramfs defaults 0 0\n")
    tree.write("core/app.cc", "int app;\n")
    tree.write("images/default.py", "run = []\n")
    tree.write("images/empty.py", "run = []\n")
    tree.write("modules/zfs/module.py", "")
    tree.write("modules/web/module.py", "")
    tree.write("modules/web/Makefile", "module:\n\techo $(WEB_COLOUR)\n")
    tree.write("modules/web/usr.manifest", "/web: ${MODULE_DIR}/web.bin\n")
    tree.write("modules/web/web.bin", "web")
    tree.write("apps/java/module.py", "")
    tree.write("config.json", '{"modules": {"repositories": ["${OSV_BASE}/apps", "${OSV_BASE}/modules"]}}')
    tree.write(".gitignore", "build/\nbuild.out\n")
    tree.write("conf/profiles/x64/all.mk", "conf_drivers_nvme?=1\n")
    tree.write("conf/profiles/x64/aws.mk", "conf_drivers_ena?=1\n")
    if kconfig:
        tree.write("Makefile", MAKEFILE)
        tree.write("conf/base.mk", "conf_zfs=bsd\n")
        tree.write("conf/kconfig/core", KCONFIG)
        tree.write("conf/Makefile", CONF_MAKEFILE)
        tree.write("kbuild/conf", f"#!{sys.executable}\n{CONF}")
        (path / "kbuild" / "conf").chmod(0o755)
    else:
        tree.write("Makefile", "drivers_profile?=all\nifeq ($(conf_drivers_nvme),1)\nendif\n$(conf_hide_symbols)\n")
        tree.write("conf/base.mk", "conf-preempt=1\nconf-lazy_stack=0\nconf_hide_symbols=0\n")
    tree.tools.mkdir(exist_ok=True)
    for tool in TOOLS:
        _program(tree.tools / tool, f"echo {tool} 1.0 of a test")
    _program(tree.tools / "qemu-img", f'exec {sys.executable} {HERE / "qcow2.py"} "$@"')
    if git:
        tree.git("init", "-q", "-b", "master")
        tree.commit()
    return tree


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


HAS_TOOLS = all(shutil.which(tool) for tool in ("git", "make", "bash"))
