"""The compute driver: Nova's own for libvirt, for which a server's image is made
first.

A server that was asked for with a composite image gets the image that holds the
parts it wants, found or made here, as its own: ``image_ref`` is that one from
then on, and all that Nova does later it does with an ordinary image. For every
other image nothing is changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import nova.conf
from nova import exception, objects, utils
from nova.compute import task_states, vm_states
from nova.image import glance
from nova.virt.disk import api as disk_api
from nova.virt.image import model as imgmodel
from nova.virt.libvirt import driver as libvirt
from nova.virt.libvirt import imagecache
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging
from oslo_utils import excutils

from splitimage_driver import exceptions
from splitimage_driver.launch import accelerator
from splitimage_driver.model import properties
from splitimage_driver.nova import completing, holdings, laying, precache, request
from splitimage_driver.nova.layouts import Layouts
from splitimage_driver.nova.session import Sessions

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_PREFIX = utils.SM_IMAGE_PROP_PREFIX
_ROLE = _PREFIX + "splitimage_role"
_BASE_REF = _PREFIX + "base_image_ref"
#: In a server's system metadata: its image, where that was found or made here.
#: A snapshot inherits it as a property, so it is none of those that are protected.
COMPOSED = "composed_image_ref"
#: What another host may not suffer from.
_OF_THIS_HOST = (exceptions.StoreFull, exceptions.StoreCorrupt, exceptions.StoreVersion,
                 exceptions.LockTimeout, exceptions.ToolMissing, exceptions.KernelUnreadable,
                 exceptions.ApplianceFailed, exceptions.PluginLoadFailed,
                 exceptions.CloudUnreachable)


class SnapshotRefused(exception.NovaException):
    msg_fmt = "No snapshot is taken: %(reason)s"


#: Nova's name of the event of a snapshot.
_SNAPSHOT = "compute_snapshot_instance"
#: Of ``[libvirt] inject_partition``: the partition is found, nothing is injected.
_FIND, _NONE = -1, -2


def _image_cache() -> Path:
    """Where Nova keeps what it has downloaded."""
    return Path(CONF.instances_path, CONF.image_cache.subdirectory_name)


class SplitImageDriver(libvirt.LibvirtDriver):
    """``compute_driver = splitimage.SplitImageDriver``"""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sessions = Sessions()
        self._layouts = Layouts(self, self._sessions, self._said)

    def init_host(self, host: str) -> None:
        if accelerator.choose(self._sessions.conf.assembly.accelerator,
                              qemu=self._sessions.conf.launch.qemu) == accelerator.TCG:
            # For Nova's own appliances, too.
            os.environ.setdefault("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
        super().init_host(host)
        self._tidy()
        self._layouts.resume()

    def _tidy(self) -> None:
        """Away with what a nova-compute that was killed has left."""
        try:
            with self._sessions.own() as application:
                if application is not None:
                    application.store.discard_leftovers()
        except exceptions.SplitImageError as error:
            LOG.warning("what an earlier nova-compute left in the image service stays for now: "
                        "%s", error)

    # -- a server's image -------------------------------------------------------------

    def spawn(self, context: Any, instance: Any, image_meta: Any, *args: Any,
              **options: Any) -> None:
        # Not where a server is made anew from what it was: unshelved, evacuated,
        # rebuilt, moved to another cell.
        if instance.vm_state == vm_states.BUILDING:
            self._complete(context, instance, again=True)
        self._layouts.places.settle(instance.uuid)
        super().spawn(context, instance, image_meta, *args, **options)

    def rebuild(self, context: Any, instance: Any, *args: Any, evacuate: bool = False,
                **options: Any) -> None:
        """The old disk is still there; whatever fails here leaves it so."""
        if not evacuate:
            before = instance.system_metadata.get(COMPOSED)
            try:
                self._complete(context, instance, again=False)
            except Exception:
                with excutils.save_and_reraise_exception():
                    self._put_back(context, instance, before)
        raise NotImplementedError  # "do as with any image"

    def _complete(self, context: Any, instance: Any, *, again: bool) -> None:
        """:param again: whether Nova may try another host"""
        former = laying.read(instance.system_metadata)
        with self._layouts.renewed(instance):
            self._composed(context, instance, former, again=again)

    def _composed(self, context: Any, instance: Any, former: laying.Made | None, *,
                  again: bool) -> None:
        """:param former: what the server is made of, where it has laid that itself"""
        metadata = instance.system_metadata
        role = metadata.get(_ROLE)
        if metadata.get(COMPOSED) != instance.image_ref:
            # Of another image; else another host has made it, and failed later.
            metadata.pop(COMPOSED, None)
        if role not in (properties.COMPOSITE, properties.COMPLETED):
            self._forget(metadata)
            return
        try:
            wanted = request.wanted(instance.metadata, instance.flavor.extra_specs)
            self._layouts.remember(instance, wanted)
            if (former is not None and wanted.says_nothing and role == properties.COMPLETED
                    and metadata.get(COMPOSED) == instance.image_ref):
                # Its image is what it started from; the rest it has laid itself.
                wanted = msgspec.structs.replace(wanted, parts=former.parts,
                                                 filesets=former.filesets)
            if instance.image_ref:
                start = completing.Start(image=instance.image_ref, role=role, wanted=wanted,
                                         disk_bytes=instance.flavor.root_gb << 30)
                image = utils.tpool_wrap(self)._completed(context, instance, start)
                self._take(instance, image)
            elif not wanted.says_nothing:
                raise exceptions.InvalidInput(
                    what="the server", reason="it boots from a volume, and parts are put "
                    "together for servers that boot from an image only")
        except exceptions.SplitImageError as error:
            LOG.warning("cannot make the image: %s", error, instance=instance)
            self._refuse(instance, error, again=again)
        self._forget(metadata)
        instance.save()

    def _completed(self, context: Any, instance: Any, start: completing.Start) -> str:
        with self._sessions.of(context) as application:
            return completing.complete(
                application, start, check=lambda: self._check(context, instance),
                seed=lambda image, disk: self._seed(image, disk, application.store),
                lay=lambda delivery, had, becomes: self._layouts.prepare(
                    instance, delivery, had, becomes, application.store))

    @staticmethod
    def _check(context: Any, instance: Any) -> None:
        """:raises InvalidInput: nothing can be put together for it"""
        if context.project_id != instance.project_id:
            raise exceptions.InvalidInput(
                what="the server", reason="it is another project's, and only that one can have "
                "it put together anew")
        if CONF.glance.verify_glance_signatures or instance.trusted_certs:
            raise exceptions.InvalidInput(
                what="the server", reason="its image is to have a signature, and one that is "
                "put together here has none")

    def _seed(self, image: str, disk: Path, store: Any) -> None:
        """So that Nova has no need to fetch what was made here."""
        if CONF.libvirt.images_type == "rbd":
            return  # it clones inside Ceph
        name = imagecache.get_cache_fname(image)
        target = _image_cache() / name

        # Nova's own lock on that file.
        @utils.synchronized(name, external=True,
                            lock_path=os.path.join(CONF.instances_path, "locks"))
        def put() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                with store.scratch() as scratch:
                    completing.seed(disk, target, scratch=scratch, raw=CONF.force_raw_images)

        try:
            put()
        except (exceptions.SplitImageError, OSError) as error:
            LOG.warning("image %s was made here but is fetched again: %s", image, error)

    @staticmethod
    def _take(instance: Any, image: str) -> None:
        instance.image_ref = image
        instance.system_metadata[_BASE_REF] = image
        instance.system_metadata[COMPOSED] = image

    def _put_back(self, context: Any, instance: Any, before: str | None) -> None:
        """After a rebuild that was refused the server is said to be of the new
        image, and the next reboot without the old one's file would fetch the new
        one in its place.

        :param before: id of the old image, if that was found or made here
        """
        try:
            image = before or self._image_of_disk(context, instance)
        except Exception as error:
            LOG.warning("cannot find out which image the disk is of: %s", error,
                        instance=instance)
            image = None
        if image is None:
            return
        metadata = instance.system_metadata
        self._forget(metadata)
        instance.image_ref = metadata[_BASE_REF] = image
        if before:
            metadata[COMPOSED] = before
        try:
            found = glance.API().get(context, image)
        except exception.NovaException as error:
            # What it said is not known any more; the rest is right.
            LOG.warning("image %s cannot be read: %s", image, error, instance=instance)
        else:
            for key in [key for key in metadata if key.startswith(_PREFIX)]:
                del metadata[key]
            metadata.update(utils.get_system_metadata_from_image(found, instance.flavor))
            metadata[_BASE_REF] = image
            self._forget(metadata)
            instance.kernel_id = found["properties"].get("kernel_id") or ""
            instance.ramdisk_id = found["properties"].get("ramdisk_id") or ""
        instance.save()

    def _image_of_disk(self, context: Any, instance: Any) -> str | None:
        """Of the images that the project sees, the one whose file in the image
        cache is what the server's disk is based on."""
        disk = os.path.join(libvirt_utils.get_instance_path(instance), "disk")
        if CONF.libvirt.images_type not in ("default", "qcow2") or not os.path.exists(disk):
            return None  # a disk that is based on nothing
        base = libvirt_utils.get_disk_backing_file(disk, format="qcow2")
        with self._sessions.of(context) as application:
            store: Any = application.store
            return next((image["id"] for image in store.images_api.list(hidden=None)
                         if imagecache.get_cache_fname(image["id"]) == base), None)

    @staticmethod
    def _forget(metadata: dict[str, str]) -> None:
        """A snapshot would inherit what the image says of itself, and be taken
        for what it is not."""
        for key in [key for key in metadata if key.startswith(_PREFIX + properties.PREFIX)]:
            del metadata[key]

    @staticmethod
    def _refuse(instance: Any, error: exceptions.SplitImageError, *, again: bool) -> NoReturn:
        """So that the tenant reads why; but where another host may do better Nova
        tries that first."""
        if again and isinstance(error, _OF_THIS_HOST):
            raise exception.NovaException(str(error)) from error
        reason = str(error)
        if isinstance(error, exceptions.OpenConflict):
            reason += f"; {error.advice}"  # the tenant's, or for whom they ask
        raise exception.BuildAbortException(instance_uuid=instance.uuid,
                                            reason=reason) from error

    # -- what a server lays itself ------------------------------------------------------

    def _get_guest_config(self, instance: Any, network_info: Any, image_meta: Any,
                          disk_info: Any, rescue: Any = None, *args: Any,
                          **options: Any) -> Any:
        guest = super()._get_guest_config(instance, network_info, image_meta, disk_info, rescue,
                                          *args, **options)
        if not rescue:  # that system would lay it over itself
            self._layouts.equip(instance, guest)
        return guest

    def _said(self, instance: Any) -> bytes:
        """The end of what a server has said: of the file, where Nova's own look asks a
        terminal first, each time in vain."""
        return bytes(self._get_console_output_file(instance,
                                                   self._get_console_log_path(instance)))

    def get_console_output(self, context: Any, instance: Any) -> Any:
        self._layouts.asked(context, instance)
        return super().get_console_output(context, instance)

    def snapshot(self, context: Any, instance: Any, image_id: str, *args: Any,
                 **options: Any) -> None:
        shelves = instance.task_state == task_states.SHELVING
        reason = self._layouts.refusal(instance, "a shelved server" if shelves else "a snapshot")
        if reason is not None:
            if shelves:  # else Nova itself does that
                glance.API().delete(context, image_id)
            else:  # that event says success by now, because there is a thread for it
                objects.InstanceActionEvent.event_finish_with_failure(
                    context, instance.uuid, _SNAPSHOT, exc_val=reason, exc_tb="")
            raise SnapshotRefused(reason=reason)
        super().snapshot(context, instance, image_id, *args, **options)

    def power_off(self, instance: Any, *args: Any, **options: Any) -> None:
        # Who shelves a server takes its snapshot next, and that is refused: until then
        # it runs on.
        if (instance.task_state != task_states.SHELVING
                or self._layouts.refusal(instance, "a shelved server") is None):
            super().power_off(instance, *args, **options)

    def migrate_disk_and_power_off(self, context: Any, instance: Any, *args: Any,
                                   **options: Any) -> Any:
        reason = self._layouts.refusal(instance, "a server that is moved")
        if reason is not None:
            raise exception.InstanceFaultRollback(exception.ResizeError(reason=reason))
        return super().migrate_disk_and_power_off(context, instance, *args, **options)

    def check_can_live_migrate_source(self, context: Any, instance: Any, *args: Any,
                                      **options: Any) -> Any:
        reason = self._layouts.refusal(instance, "a server that is moved")
        if reason is not None:
            raise exception.MigrationPreCheckError(reason=reason)
        return super().check_can_live_migrate_source(context, instance, *args, **options)

    def instance_on_disk(self, instance: Any) -> bool:
        """Asked about a server that is to be evacuated to here, before anything is
        done to it."""
        reason = self._layouts.lost(instance)
        if reason is not None:
            raise exception.InstanceFaultRollback(exception.BuildAbortException(
                instance_uuid=instance.uuid, reason=reason))
        return bool(super().instance_on_disk(instance))

    # -- what this host has ------------------------------------------------------------

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """With what the scheduler's weigher goes by."""
        found: dict[str, Any] = super().get_available_resource(nodename)
        found.setdefault("stats", {}).update(holdings.stats(self._sessions.path, _image_cache()))
        return found

    def cache_image(self, context: Any, image_id: str) -> bool:
        """A composite with its parts; any other image as Nova does."""
        found: bool | None = utils.tpool_wrap(self)._precached(context, image_id)
        return bool(super().cache_image(context, image_id)) if found is None else found

    def _precached(self, context: Any, image: str) -> bool | None:
        with self._sessions.of(context) as application:
            return precache.cache(application, image)

    # -- files that were given with the request ------------------------------------------

    def _create_image(self, context: Any, instance: Any, disk_mapping: Any,
                      injection_info: Any = None, suffix: str = "", **options: Any) -> Any:
        created = super()._create_image(context, instance, disk_mapping,
                                        injection_info=injection_info, suffix=suffix, **options)
        if (injection_info is not None and injection_info.files and not suffix
                and COMPOSED in instance.system_metadata
                and CONF.libvirt.inject_partition == _NONE):
            self._inject_files(instance, disk_mapping, injection_info.files)
        return created

    def _inject_files(self, instance: Any, disk_mapping: Any, files: Any) -> None:
        """Into the server's own disk, never into an image: they are secrets as
        likely as not."""
        disk = self.image_backend.by_name(instance, "disk", disk_info_mapping=disk_mapping["disk"])
        model = disk.get_model(self._conn)
        if isinstance(model, imgmodel.LocalFileImage):
            # Nova's model of a flat disk says raw, of whatever it is a copy.
            model = imgmodel.LocalFileImage(disk.path, disk.driver_format)
        try:
            utils.tpool_wrap(disk_api).inject_data(model, files=files, partition=_FIND,
                                                   mandatory=("files",))
        except Exception as error:
            LOG.exception("cannot write the files", instance=instance)
            raise exception.BuildAbortException(
                instance_uuid=instance.uuid,
                reason=f"the files of the request cannot be written to its disk: {error}"
            ) from error
