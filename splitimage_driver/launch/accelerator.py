"""Whether hardware virtualisation really works here.

That /dev/kvm exists and even creates a machine proves nothing: nested hosts
are known where qemu aborts, where firmware and 16-bit code run (interpreted
by the host's kernel) and an operating system hangs without a line of
output. So guest code is run: :data:`PROBE` switches a processor to 64 bits
with paging, touches memory, works for a moment and reports by an exit status
that nothing else ends with.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions, process

LOG = logging.getLogger(__name__)

AUTO, KVM, TCG = "auto", "kvm", "tcg"
QEMU = "qemu-system-x86_64"
#: Exit status of qemu when the probe is done: isa-debug-exit makes 2n + 1 of n.
DONE = 2 * 0x2A + 1
#: A working KVM needs 0.1 s, most of it for the firmware.
TIMEOUT = 3.0
#: Seconds for which a "no" is believed: the host may have been overloaded.
NO_LASTS = 3600.0
_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: The firmware does not boot from a disk of one sector.
_DISK_SIZE = 1 << 20

#: Boot sector, loaded at 0x7c00. GNU as, AT&T syntax.
PROBE = bytes.fromhex("".join((
    "fa",                  # cli
    "31c0",                # xorw %ax, %ax
    "8ed88ec08ed0",        # movw %ax, %ds; %es; %ss
    "bc007c",              # movw $0x7c00, %sp
    # Page tables: 0x1000 -> 0x2000 -> 0x3000, the first GiB in pages of 2 MiB
    "fc",                  # cld
    "6631c0",              # xorl %eax, %eax
    "b9000c",              # movw $0x0c00, %cx
    "bf0010",              # movw $0x1000, %di
    "66f3ab",              # rep stosl
    "c70600100320",        # movw $0x2003, 0x1000
    "c70600200330",        # movw $0x3003, 0x2000
    "bf0030",              # movw $0x3000, %di
    "66b883000000",        # movl $0x83, %eax
    "668905",              # 1: movl %eax, (%di)
    "83c708",              # addw $8, %di
    "660500002000",        # addl $0x200000, %eax
    "81ff0040",            # cmpw $0x4000, %di
    "75ee",                # jne 1b
    # 64 bits: CR4.PAE and SSE, EFER.LME, CR0.PG and PE
    "66b820060000",        # movl $0x620, %eax
    "0f22e0",              # movl %eax, %cr4
    "66b800100000",        # movl $0x1000, %eax
    "0f22d8",              # movl %eax, %cr3
    "66b9800000c0",        # movl $0xc0000080, %ecx
    "0f32",                # rdmsr
    "0d0001",              # orw $0x100, %ax
    "0f30",                # wrmsr
    "66b811000080",        # movl $0x80000011, %eax
    "0f22c0",              # movl %eax, %cr0
    "660f0116d07c",        # lgdtl 0x7cd0
    "66ea767c00000800",    # ljmpl $8, $0x7c76
    # 2048 pages from 16 MiB on: written, read back
    "bf00000001",          # 0x7c76: movl $0x1000000, %edi
    "b900080000",          # movl $2048, %ecx
    "48893f",              # 2: movq %rdi, (%rdi)
    "48393f",              # cmpq %rdi, (%rdi)
    "7535",                # jne fail
    "81c700100000",        # addl $4096, %edi
    "e2f0",                # loop 2b
    # 32 Mi turns: 0.02 s of a processor, minutes of an interpreter
    "b900000002",          # movl $0x2000000, %ecx
    "31d2",                # xorl %edx, %edx
    "83c203",              # 3: addl $3, %edx
    "ffc9",                # decl %ecx
    "75f9",                # jnz 3b
    "81fa00000006",        # cmpl $0x6000000, %edx
    "7517",                # jne fail
    "660f6ec2",            # movd %edx, %xmm0
    "660ffec0",            # paddd %xmm0, %xmm0
    "660f7ec0",            # movd %xmm0, %eax
    "3d0000000c",          # cmpl $0xc000000, %eax
    "7504",                # jne fail
    "b02a",                # movb $0x2a, %al
    "e6f4",                # outb %al, $0xf4
    "f4ebfd",              # fail: hlt; jmp fail
    "0000000000000000",    # 0x7cc0: GDT
    "ffff0000009baf00",    # 64-bit code
    "0f00c07c0000",        # 0x7cd0: its limit and address
))).ljust(510, b"\0") + b"\x55\xaa"


class _Answer(msgspec.Struct):
    key: list[str]
    works: bool
    asked: float


def choose(wanted: str = AUTO, *, qemu: str = QEMU, cache: Path | None = None) -> str:
    """``kvm`` or ``tcg`` for the option ``[assembly] accelerator``.

    :raises ToolMissing: no qemu
    """
    if wanted != AUTO:
        return wanted
    return KVM if kvm_works(cache, qemu=qemu) else TCG


def arguments(accelerator: str) -> list[str]:
    """qemu's options for an accelerator."""
    if accelerator == KVM:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def kvm_works(cache: Path | None = None, *, qemu: str = QEMU) -> bool:
    """Whether a guest runs under KVM; asked once for each boot of the host,
    qemu and user.

    :param cache: the file with the answer; None: in the user's cache directory
    :raises ToolMissing: no qemu
    """
    tool = process.find(qemu)
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    cache = cache_file() if cache is None else cache
    key = _key(tool)
    known = _recall(cache)
    if known is not None and known.key == key and (
            known.works or 0 <= time.time() - known.asked < NO_LASTS):
        return known.works
    works = probe(KVM, qemu=tool)
    LOG.info("hardware virtualisation %s here",
             "works" if works else "does not work, machines are emulated")
    _remember(cache, _Answer(key=key, works=works, asked=time.time()))
    return works


def probe(accelerator: str, *, qemu: str = QEMU, timeout: float = TIMEOUT) -> bool:
    """Run :data:`PROBE`; True when it came to its end within ``timeout`` seconds."""
    with tempfile.NamedTemporaryFile(prefix="splitimage-probe-") as disk:
        disk.write(PROBE)
        disk.truncate(_DISK_SIZE)
        disk.flush()
        node = {"driver": "raw", "node-name": "probe", "read-only": True,
                "file": {"driver": "file", "filename": disk.name}}
        try:
            process.run(
                [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-machine", "q35", *arguments(accelerator), "-m", "64",
                 "-blockdev", msgspec.json.encode(node).decode(),
                 "-device", "virtio-blk-pci,drive=probe",
                 "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
                timeout=timeout, ok=(DONE,))
        except exceptions.ToolFailed as error:
            LOG.debug("the probe of %s failed: %s", accelerator, error)
            return False
    return True


def cache_file() -> Path:
    """Where the answer is remembered, as the XDG base directories say."""
    place = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(place) if place.startswith("/") else Path.home() / ".cache"
    return base / "splitimage" / "kvm.json"


def _key(tool: str) -> list[str]:
    return [_BOOT_ID.read_text().strip(), tool, str(Path(tool).stat().st_mtime_ns),
            str(os.getuid())]


def _recall(cache: Path) -> _Answer | None:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=_Answer)
    except (OSError, msgspec.MsgspecError):
        return None


def _remember(cache: Path, answer: _Answer) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        beside = cache.with_name(f"{cache.name}.{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(answer))
        beside.replace(cache)
    except OSError as error:  # asked again next time, nothing worse
        LOG.debug("the answer cannot be kept in %s: %s", cache, error)
