from __future__ import annotations

import pytest

from osvdeploy.digests import Digest, sha256
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import Extent, image_digest

KERNEL, ROFS = Digest("a" * 64), Digest("b" * 64)
PARTITION = Extent(4 << 20, (4 << 20) + 1024)
BOOT = BootCommand((("verbose", None), ("cwd", "/")), (("A", "é"),), ("/hello", "-p"))


def test_the_image_digest_is_over_this_canonical_json() -> None:
    """The form is fixed: a published image carries this digest for as long as it lives."""
    form = (
        '{"boot":{"environment":[["A","é"]],"options":[["verbose",null],["cwd","/"]],"words":["/hello","-p"]},'
        f'"kernel":"{KERNEL}","partition":{{"size":1024,"slot":2,"start":4194304}},"rofs":"{ROFS}","size":1073741824}}'
    )
    assert image_digest(kernel=KERNEL, rofs=ROFS, partition=PARTITION, size=1 << 30, boot=BOOT) == sha256(form.encode())


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": ROFS},
        {"rofs": KERNEL},
        {"partition": Extent(PARTITION.start, PARTITION.end + 512)},
        {"size": 2 << 30},
        {"boot": BootCommand(BOOT.options, BOOT.environment, ("/hello",))},
    ],
)
def test_whatever_changes_the_disk_changes_the_digest(change: dict[str, object]) -> None:
    """Each part counts."""
    parts: dict[str, object] = {"kernel": KERNEL, "rofs": ROFS, "partition": PARTITION, "size": 1 << 30, "boot": BOOT}
    same = image_digest(**parts)  # type: ignore[arg-type]  # by name
    assert image_digest(**(parts | change)) != same  # type: ignore[arg-type]  # by name
