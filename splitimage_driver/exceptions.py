"""Every error a user can meet: what happened, where, what to do about it.

A class is a message template, a hint and an exit code. Exit codes are part
of the command line's interface: they never change their meaning. 2 is
argparse's, 3 to 9 are left to the shell and to signals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class SplitImageError(Exception):
    """Base of all errors of this project.

    :cvar message: template, filled from the keyword arguments
    :cvar hint: one sentence that says what to do; filled likewise
    :cvar exit_code: the status the command line ends with
    """

    message = "unexpected failure: %(reason)s"
    hint = "run the command again with --debug and report what it prints"
    exit_code = 1

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.message % fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.fields)

    @property
    def advice(self) -> str:
        return self.hint % self.fields


def _again(kind: type[SplitImageError], fields: dict[str, Any]) -> SplitImageError:
    """What pickle makes of one."""
    return kind(**fields)


# -- 10..19: what is asked for does not exist or is not possible -------------

class NotFound(SplitImageError):
    message = "no %(kind)s named %(name)s in %(where)s"
    hint = "list what there is with: splitimage %(kind)s list"
    exit_code = 10


class PackageNotFound(NotFound):
    hint = "splitimage inspect DISK shows the software that is installed"


class AlreadyExists(SplitImageError):
    message = "a %(kind)s named %(name)s exists already in %(where)s"
    hint = "choose another name, or delete the old one first"
    exit_code = 11


class InUse(SplitImageError):
    message = "%(kind)s %(name)s is in use by %(users)s"
    hint = "delete what uses it first"
    exit_code = 12


class UnknownPart(SplitImageError):
    message = "composite %(composite)s has no part %(part)s (it has: %(parts)s)"
    hint = "name one of its parts, or add one: splitimage composite add-part"
    exit_code = 13


class RequirementMissing(SplitImageError):
    message = "part %(part)s requires %(missing)s, which composite %(composite)s does not have"
    hint = "add the required part to the composite, or remove the requirement"
    exit_code = 14


class InvalidInput(SplitImageError):
    message = "%(what)s: %(reason)s"
    hint = "correct it and run the command again"
    exit_code = 15


def ambiguous(kind: str, name: str, ids: Iterable[str]) -> InvalidInput:
    """Several things have the name that was given.

    :param ids: theirs, as far as they have to be given
    """
    known = sorted(ids)
    return InvalidInput(what=f"{kind} {name}", reason=f"{len(known)} have this name, give an id: "
                        + ", ".join(known))


class OpenConflict(SplitImageError):
    message = "%(who)s disagree about %(path)s: %(reason)s%(more)s"
    # Short: with the message it is a fault of Nova's, of which 255 characters are kept.
    hint = "its administrator answers: splitimage conflict resolve %(composite)s %(path)s"
    exit_code = 16


class FilesetConflict(OpenConflict):
    hint = ("answer with --on-conflict (in Nova splitimage:conflicts) "
            "%(path)s=keep|replace|concatenate")


class AccountClash(SplitImageError):
    message = "accounts clash: %(clashes)s"
    hint = "capture again with --renumber, or give the accounts other numbers on the gold machine"
    exit_code = 17


class Cancelled(SplitImageError):
    message = "%(what)s was cancelled"
    hint = "run the command again when you want it after all"
    exit_code = 18


class NothingToCompose(SplitImageError):
    message = "no candidate can be completed for this request: %(reason)s"
    hint = "run splitimage plan --explain to see why each candidate was refused"
    exit_code = 19


# -- 20..29: hostile or broken input ------------------------------------------

class BadDisk(SplitImageError):
    message = "%(path)s is not a usable disk image: %(reason)s"
    hint = "give a complete raw or qcow2 disk image without backing or data files"
    exit_code = 20


class UnsafeDisk(BadDisk):
    message = "%(path)s is refused: %(reason)s"
    hint = "flatten it first: qemu-img convert -O qcow2 IN OUT"
    exit_code = 21


class NoOperatingSystem(SplitImageError):
    message = "no operating system found in %(path)s"
    hint = "give a bootable disk with an installed system; splitimage inspect shows what is seen"
    exit_code = 22


class UnsafePath(SplitImageError):
    message = "%(source)s: member %(path)s is refused: %(reason)s"
    hint = "pack the files with plain relative names below the root, without passing through links"
    exit_code = 23


class UnsafeMode(SplitImageError):
    message = "%(source)s: %(path)s is %(what)s, which a file set may not bring"
    hint = "clear the bit, or let an administrator create the part with --allow-setuid"
    exit_code = 24


class DigestMismatch(SplitImageError):
    message = "%(what)s does not match its digest: expected %(expected)s, found %(found)s"
    hint = "the store is damaged: run splitimage store check"
    exit_code = 25


class BadArchive(SplitImageError):
    message = "%(path)s cannot be read as %(expected)s: %(reason)s"
    hint = "give a directory, a tar file (plain, gz, xz, zst) or the named format"
    exit_code = 26


class Unsupported(SplitImageError):
    message = "%(what)s is not supported: %(reason)s"
    hint = "see the capture page of the documentation for what is supported"
    exit_code = 27


class TooLarge(SplitImageError):
    message = "%(what)s is larger than allowed: %(size)d > %(limit)d %(unit)s"
    hint = "make it smaller, or raise %(option)s in the configuration"
    exit_code = 28


class BadImage(SplitImageError):
    message = "image %(image)s is refused: %(reason)s"
    hint = "it was not made by this project, or was changed since: delete it, or capture again"
    exit_code = 29


# -- 30..39: resources ---------------------------------------------------------

class NoSpaceInImage(SplitImageError):
    message = ("no room in %(mountpoint)s of the image: needs %(needed)d %(unit)s, "
               "has %(available)d")
    hint = "capture from a gold machine with a larger disk, or ask for fewer parts"
    exit_code = 30


class StoreFull(SplitImageError):
    message = "no room in the store %(path)s: needs %(needed)d bytes, has %(available)d"
    hint = "free some: splitimage image prune, or point --store at a larger disk"
    exit_code = 31


class StoreCorrupt(SplitImageError):
    message = "the store's database %(path)s is damaged: %(reason)s"
    hint = "restore it from a backup, or move it away and capture again; the blobs are untouched"
    exit_code = 32


class StoreVersion(SplitImageError):
    message = "the store %(path)s has schema %(found)s, this version reads %(expected)s"
    hint = "use the release that made it, or a new directory"
    exit_code = 33


class QuotaExceeded(SplitImageError):
    message = "project %(project)s has no quota left: %(reason)s"
    hint = "free some: splitimage image prune --max-count N, or ask the operator for more"
    exit_code = 34


class ServiceFull(QuotaExceeded):
    message = "%(where)s has no room: %(reason)s"
    hint = "free some: splitimage image prune --max-count N, or tell the operator of the cloud"


class LockTimeout(SplitImageError):
    message = "%(what)s is still held by another process after %(seconds)d s"
    hint = "wait for it to finish, or look with: splitimage queue list"
    exit_code = 35


# -- 40..49: the tools around us -----------------------------------------------

class ToolMissing(SplitImageError):
    message = "%(tool)s is not installed"
    hint = "install it: apt-get install %(package)s; splitimage doctor checks everything"
    exit_code = 40


class ToolFailed(SplitImageError):
    message = "%(tool)s failed (%(status)s): %(reason)s"
    hint = "splitimage doctor checks the tools; --debug shows the full command"
    exit_code = 41


class KernelUnreadable(SplitImageError):
    message = "the appliance needs a host kernel it can read: %(reason)s"
    hint = ("apt-get install linux-image-cloud-amd64, and run as a user that can read "
            "/boot/vmlinuz-*; never change its mode")
    exit_code = 42


class ApplianceFailed(SplitImageError):
    message = "the libguestfs appliance failed at %(step)s: %(reason)s"
    hint = "splitimage doctor checks the appliance; --debug shows its log"
    exit_code = 43


class ApplianceTimeout(ApplianceFailed):
    message = "the libguestfs appliance did not start within %(seconds)d s"
    hint = "raise [assembly] launch_timeout, or see splitimage doctor"
    exit_code = 44


class LaunchFailed(SplitImageError):
    message = "server %(server)s did not start: %(reason)s"
    hint = "look at its console: splitimage server console %(server)s"
    exit_code = 45


class PluginLoadFailed(SplitImageError):
    message = "plugin %(name)s of %(namespace)s cannot be loaded: %(reason)s"
    hint = "correct the option that names it, or install what it needs"
    exit_code = 46


class WorkerLost(SplitImageError):
    message = "%(what)s ended without a result (status %(status)s)"
    hint = "run it again; if memory is short, lower [launch] max_parallel"
    exit_code = 47


class SplitTimeout(SplitImageError):
    message = "the split was ended after %(seconds)d s"
    hint = "raise [split] timeout in the configuration of the image service"
    exit_code = 48


# -- 50..59: the cloud around us ------------------------------------------------

class CloudUnreachable(SplitImageError):
    message = "%(where)s does not answer: %(reason)s"
    hint = "check that the service runs and that clouds.yaml names it, then run the command again"
    exit_code = 50


class NotPermitted(SplitImageError):
    message = "%(where)s does not permit to %(what)s: %(reason)s"
    hint = "log in as somebody who may, or ask the operator of the cloud"
    exit_code = 51


class CloudRefused(SplitImageError):
    message = "%(where)s refused to %(what)s: %(reason)s"
    hint = "correct what it names and run the command again"
    exit_code = 52


class CloudFailed(SplitImageError):
    message = "%(where)s failed to %(what)s: %(reason)s"
    hint = "run the command again; if it stays so, look at the log of the service"
    exit_code = 53


class ChangedMeanwhile(SplitImageError):
    message = "%(kind)s %(name)s was changed by somebody else meanwhile"
    hint = "look at it again, then run the command again"
    exit_code = 54


# -- 60..69: servers that lay parts while they run ------------------------------

class LayoutIncomplete(SplitImageError):
    message = "server %(server)s has laid %(percent)d %% of its parts: %(what)s"
    hint = "try again when it is complete, which this waits for: splitimage server wait %(server)s"
    exit_code = 60


class LayoutFailed(SplitImageError):
    message = "server %(server)s runs, but did not lay all its parts: %(reason)s"
    hint = "mend that, and have it lay what is missing: splitimage server retry %(server)s"
    exit_code = 61


class ChangedInServer(SplitImageError):
    message = ("nothing is removed from server %(server)s: what was changed there would be lost "
               "with it: %(paths)s")
    hint = "save that and run the command again with --force, or leave the part where it is"
    exit_code = 62
