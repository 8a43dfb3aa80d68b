"""The import plugin ``splitimage_split``: a gold disk becomes a composite image.

An image with the property ``splitimage_split`` is split between its arrival in
the staging area and the upload to a store::

    staged gold disk      ->  split on this host        nothing in Glance yet
    parts, manifests      ->  hidden images             for this image only
    staged file           :=  the base's disk           not visible yet
    properties            :=  the composite's
    Glance's own import   ->  active                    from here on a composite

Whatever fails, its own import too, the image is queued as before with the reason
in ``splitimage_error``, and what was stored for it goes again. Where Glance is
killed the image stays ``importing``; once its owner deletes it, the collector
takes the rest. All other images pass untouched.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glance.common import exception
from oslo_config import cfg
from oslo_log import log as logging
from taskflow import task
from taskflow.patterns import linear_flow
from taskflow.types.failure import Failure

from splitimage_driver.conf import hosted
from splitimage_driver.exceptions import NotFound, SplitImageError
from splitimage_driver.glance import splitting, transport
from splitimage_driver.glance.splitting import Captured, Order
from splitimage_driver.model import properties
from splitimage_driver.store.glance import access
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.publish import gib
from splitimage_driver.store.glance.store import GlanceStore

LOG = logging.getLogger(__name__)


class SplitFailed(exception.UploadException):
    """Glance takes these for something that may happen, not for a fault of its
    own."""


class _Split(task.Task):
    """Carried out once for each import, with the rights of who asked for it.

    :param tasks: of Glance, has the task of this import
    :param action: of Glance, changes the image that is being imported
    :param stores: that the image is to go to
    """

    def __init__(self, context: Any, task_id: str, task_type: str, tasks: Any, action: Any,
                 stores: list[str]) -> None:
        super().__init__(name=f"{task_type}-SplitImage-{task_id}")
        self._context, self._action, self._stores = context, action, stores
        self._task, self._tasks = task_id, tasks
        self._before: Description | None = None
        self._changed: dict[str, Any] = {}
        self._staged = Path()
        self._reason = ""

    @functools.cached_property
    def _images(self) -> Images:
        return Images(transport.within(self._context))

    # -- forth --------------------------------------------------------------------------

    def execute(self, file_path: str) -> None:
        image = self._images.get(self._action.image_id)
        if not any(name.startswith(properties.SPLIT) for name in image):
            return
        self._before, self._staged = image, Path(file_path.removeprefix("file://"))
        conf = hosted.load(cfg.CONF)
        try:
            splitting.use_python(cfg.CONF.wsgi.python_interpreter)
            self._split(conf, splitting.order(image, self._images.project))
        except SplitImageError as error:
            LOG.info("image %s is not split: %s", image["id"], error)
            self._reason = splitting.told(error, self._staged, Path(conf.split.directory))
            raise SplitFailed(self._reason) from error

    def _split(self, conf: Any, wanted: Order) -> None:
        splitting.free_name(self._images, wanted)
        with splitting.captured(conf, hosted.files(cfg.CONF), wanted, self._staged) as found:
            self._images.get(wanted.image)  # it may have been deleted meanwhile
            splitting.free_name(self._images, wanted)
            cloud = GlanceStore(found.scratch / "cloud", conf.store, own=conf.glance,
                                transport=self._images.transport, purpose=wanted.image)
            with contextlib.closing(cloud):
                described = splitting.store(found, cloud)
            self._put(found, wanted, described)
        access.reconcile(self._images, wanted.image)
        LOG.info("image %s is split into %s", wanted.image,
                 ", ".join(sorted(found.composite.parts)))

    def _put(self, found: Captured, wanted: Order, described: Mapping[str, str]) -> None:
        """The base in place of the gold disk, the composite's properties in place
        of the order."""
        self._changed = dict.fromkeys(described)
        size = found.base.stat().st_size
        self._replace(found.base)
        assert self._before is not None  # noqa: S101 (execute has set it)
        smallest = max(int(self._before.get("min_disk") or 0),
                       gib(found.composite.base.virtual_size))
        self._images.update(wanted.image, {"min_disk": smallest})
        with self._action as action:
            action.set_image_attribute(size=size, disk_format="qcow2")
            for name in (*wanted.former, properties.ERROR):
                action.pop_extra_property(name)
            action.set_image_extra_properties(described)

    def _replace(self, base: Path) -> None:
        """Only Glance reads the staged file, and not before this task has ended:
        where it cannot be renamed it is written over."""
        mode = self._staged.stat().st_mode
        try:
            base.chmod(mode)
            base.replace(self._staged)
        except OSError:  # another file system
            shutil.copyfile(base, self._staged)

    # -- back ---------------------------------------------------------------------------

    def revert(self, result: Any = None, flow_failures: Mapping[str, Failure] | None = None,
               **_: Any) -> None:
        before = self._before
        if before is None:
            return
        try:
            self._staged.unlink(missing_ok=True)
            splitting.retract(self._images, before["id"], before["owner"])
        except (OSError, SplitImageError) as error:
            LOG.warning("what was stored for image %s stays until the collector comes: %s",
                        before["id"], error)
        reason = self._reason or _reason(flow_failures or {})
        try:
            self._tell(reason)
            self._take_back(before, reason)
        except (exception.NotFound, exception.TaskAbortedError, NotFound) as error:
            LOG.info("image %s was taken away from its import: %s", before["id"], error)

    def _tell(self, reason: str) -> None:
        """By the task, which would only have "Internal Error" of most causes."""
        with contextlib.suppress(exception.InvalidTaskStatusTransition):
            told = self._tasks.get(self._task)
            told.fail(reason)
            self._tasks.save(told)

    def _take_back(self, before: Description, reason: str) -> None:
        """The image as it was; from then on it is its owner's again."""
        self._images.update(before["id"], {"min_disk": before["min_disk"]})
        with self._action as action:
            for name in self._changed:
                action.pop_extra_property(name)
            action.set_image_extra_properties({
                **{name: before[name] for name in properties.orders(before)},
                properties.ERROR: reason})
            action.set_image_attribute(status="queued", disk_format=before["disk_format"])
            if any(self._stores):
                action.remove_importing_stores(self._stores)
                action.add_failed_stores(self._stores)


def _reason(failures: Mapping[str, Failure]) -> str:
    """Of what failed after this."""
    for failure in failures.values():
        known = failure.exception
        if isinstance(known, exception.StorageQuotaFull | exception.LimitExceeded):
            return splitting.fitting(f"the project has no quota left: {known}")
        if isinstance(known, exception.GlanceException) or type(known).__module__.startswith(
                ("glance_store.", "webob.")):
            return splitting.fitting(str(known))
    return "internal error of the image service; its log has more"


def get_flow(**kwargs: Any) -> linear_flow.Flow:
    """For Glance: the tasks of this plugin in the flow of one import.

    Never fails: Glance goes on without a plugin that does, and the gold disk
    would become an image as it is.
    """
    return linear_flow.Flow(kwargs["task_type"]).add(_Split(
        kwargs["context"], kwargs["task_id"], kwargs["task_type"], kwargs["task_repo"],
        kwargs["action_wrapper"], kwargs.get("backend") or []))
