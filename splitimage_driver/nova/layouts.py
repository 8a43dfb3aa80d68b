"""Servers of this host that lay parts while they run, as Nova sees them.

A change of a running server's parts is asked for in its metadata. Nova does not tell
its hosts of that, and without a user's login nothing may be read for them. So a host
looks at a server's metadata when somebody of its project asks for its console: that
comes with a login, disturbs nothing, and is what tells how the guest gets on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nova.conf
from nova import context as contexts
from nova import exception, objects, utils
from nova.compute import power_state, vm_states
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.deliveries import Delivery
from splitimage_driver.launch import report
from splitimage_driver.model.delivery import FORCE, KEEP, REFUSE
from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING
from splitimage_driver.nova import completing, guestdisks, laying, request
from splitimage_driver.nova.laying import Laying, Made, Places
from splitimage_driver.nova.session import Sessions
from splitimage_driver.nova.watch import Watch
from splitimage_driver.store.base import Store

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
_RUNS = (power_state.RUNNING, power_state.PAUSED)
#: Of others the console is another one's, or a device cannot go.
_LOOKED_AFTER = (vm_states.ACTIVE, vm_states.ERROR)
_READABLE = ["metadata", "system_metadata", "flavor"]


class Layouts:
    """:param driver: the compute driver
    :param console: tells the last bytes that a server's console has said
    """

    def __init__(self, driver: Any, sessions: Sessions,
                 console: Callable[[Any], bytes]) -> None:
        self._driver, self._sessions, self._console = driver, sessions, console
        self.places = Places(Path(CONF.instances_path))
        self.watch = Watch(self._look)
        #: Ids of servers whose change is under way, and what guards them.
        self._changing: set[str] = set()
        self._lock = threading.Lock()

    def resume(self) -> None:
        """When nova-compute starts."""
        self.places.tidy_all()
        here = set(self._driver.list_instance_uuids())
        for server in self.places.laying():
            found = self.places.read(server)
            if server in here and found is not None and found.incomplete:
                self.watch.add(server)

    # -- a new server --------------------------------------------------------------------

    def prepare(self, instance: Any, delivery: Delivery, had: Made, becomes: Made,
                store: Store) -> None:
        """:raises InvalidInput: this host cannot"""
        if CONF.libvirt.virt_type not in ("kvm", "qemu"):
            raise exceptions.InvalidInput(
                what=f"metadata {request.DELIVER}", reason="servers of this host cannot be given "
                "further disks: leave it out, and the parts are put into the server's image")
        self.places.prepare(instance.uuid, delivery, store, had=had, becomes=becomes)
        instance.system_metadata[laying.STATE] = LAYING
        instance.metadata[request.LAYOUT] = laying.told(delivery.layout)

    @contextlib.contextmanager
    def renewed(self, instance: Any) -> Iterator[None]:
        """What a server has laid, and is laying, is forgotten, because it is made anew;
        but not if the block fails."""
        former = dict(instance.system_metadata)
        laying.forget(instance.system_metadata)
        if request.LAYOUT in instance.metadata:
            del instance.metadata[request.LAYOUT]
        try:
            yield
        except BaseException:
            self.places.drop(instance.uuid)
            laying.forget(instance.system_metadata)
            for key in [key for key in former if laying.is_ours(key)]:
                instance.system_metadata[key] = former[key]
            found = self.places.read(instance.uuid)
            if found is not None:  # who asked for a rebuild may have taken that away
                instance.metadata[request.LAYOUT] = laying.told(found.layout)
            raise

    def equip(self, instance: Any, guest: Any) -> None:
        """Give a server that is about to be started what it is to lay.

        :param guest: its configuration
        """
        server = instance.uuid
        found = self.places.read(server)
        if found is None:
            return
        if found.again:
            found = self._again(instance, found)
        disks = self.places.disks(server)
        guestdisks.add(guest, disks)
        if disks:
            self.places.save(server, _with(found, attached=True))
            self.watch.add(server)

    # -- what has to wait ------------------------------------------------------------------

    def refusal(self, instance: Any, what: str) -> str | None:
        """Why it cannot be done to a server now; None: it can.

        :param what: is not to be done
        """
        return laying.refusal(self.places.read(instance.uuid), what)

    @staticmethod
    def lost(instance: Any) -> str | None:
        """Likewise of a server whose host is down, which is to be made here anew."""
        if instance.system_metadata.get(laying.STATE) != LAYING:
            return None
        return ("the server was laying its parts when its host went down, and what it has is not "
                "known here: try again when that host is back, or rebuild the server")

    # -- what guests tell ------------------------------------------------------------------

    def _look(self, server: str) -> bool:
        """See :class:`Watch`."""
        found = self.places.read(server)
        if found is None:  # deleted, or made anew
            self.places.tidy()
            return False
        context = contexts.get_admin_context()
        try:
            instance = objects.Instance.get_by_uuid(context, server, expected_attrs=_READABLE)
        except exception.InstanceNotFound:
            return False
        if instance.host != CONF.host:
            return False
        # One that is being started is stopped until that is done.
        if instance.task_state is not None:
            return True
        if instance.vm_state == vm_states.STOPPED:
            return False  # when it is started it is added again
        if instance.vm_state not in _LOOKED_AFTER:
            return True
        if found.layout.state == LAYING:
            found = self._heard(instance, found)
        if found.layout.state == LAYING:
            return True
        if found.layout.attached:
            if not guestdisks.detach(self._driver, self._driver._host.get_guest(instance), server):
                return True
            found = _with(found, attached=False)
            self.places.save(server, found)
        if found.layout.over:
            self.places.clear(server)
        self._note(server, laying.told(found.layout), found)
        LOG.info("layout %s is %s", found.layout.id, found.layout.state, instance=instance)
        return False

    def _heard(self, instance: Any, found: Laying) -> Laying:
        tail = laying.newer(self._console(instance), self.places.before(instance.uuid))
        # The record counts what is read of a console; here that is always its end.
        fresh = _with(msgspec.structs.replace(found, layout=report.heard(found.layout, tail)),
                      heard=0)
        if fresh.layout != found.layout:
            self.places.save(instance.uuid, fresh)
            text = laying.told(fresh.layout)
            if fresh.layout.state == LAYING and text != laying.told(found.layout):
                self._note(instance.uuid, text)
        return fresh

    def _note(self, server: str, text: str, now: Laying | None = None) -> None:
        """Let the server's user know.

        :param now: how far it has come, for Nova's own use
        """
        # Read anew each time: what somebody else has changed meanwhile stays so.
        instance = objects.Instance.get_by_uuid(contexts.get_admin_context(), server,
                                                expected_attrs=_READABLE)
        instance.metadata[request.LAYOUT] = laying.cut(text)
        metadata = instance.system_metadata
        if now is not None:
            wish = metadata.get(laying.WISH)
            laying.forget(metadata)
            metadata.update(laying.noted(now.made) | {laying.STATE: now.layout.state})
            if wish:
                metadata[laying.WISH] = wish
        instance.save()

    # -- what its user asks for ------------------------------------------------------------

    def asked(self, context: Any, instance: Any) -> None:
        """Somebody asks for a server's console: see whether its parts are to be others.
        What is to be done is done in a thread of its own."""
        if (context.project_id != instance.project_id or context.auth_token is None
                or instance.task_state is not None
                or instance.vm_state not in (vm_states.ACTIVE, vm_states.PAUSED,
                                             vm_states.STOPPED)):
            return
        metadata, known = instance.metadata, instance.system_metadata.get(laying.WISH)
        word = metadata.get(request.LAYOUT)
        if word not in (request.RETRY, request.STOP):
            try:
                wanted = request.wanted(metadata, instance.flavor.extra_specs)
            except exceptions.SplitImageError:
                return  # it is told when the server is rebuilt
            # Of a server that was made before there was this nothing is known.
            if known is None or wanted.parts is None or laying.wish(wanted) == known:
                return
            found = self.places.read(instance.uuid)
            if found is not None and found.incomplete:
                return  # one after the other
        with self._lock:
            if instance.uuid in self._changing:
                return
            self._changing.add(instance.uuid)
        threading.Thread(target=self._carry_out, args=(context, instance.uuid),
                         name=f"splitimage-change-{instance.uuid}", daemon=True).start()

    def _carry_out(self, context: Any, server: str) -> None:
        try:
            instance = objects.Instance.get_by_uuid(contexts.get_admin_context(), server,
                                                    expected_attrs=_READABLE)
            try:
                self._change(context, instance)
            except exceptions.SplitImageError as error:
                LOG.warning("its parts are not changed: %s", error, instance=instance)
                self._note(server, f"{FAILED}: {error}")
        except Exception:
            LOG.exception("server %s: its parts are not changed", server)
        finally:
            with self._lock:
                self._changing.discard(server)

    def _change(self, context: Any, instance: Any) -> None:
        """:raises SplitImageError: it stays as it is"""
        word, found = instance.metadata.get(request.LAYOUT), self.places.read(instance.uuid)
        if word == request.STOP:
            self._stop(instance, found)
            return
        if word == request.RETRY and found is not None and found.layout.state != COMPLETE:
            self._retry(context, instance, found)
            return
        wanted = request.wanted(instance.metadata, instance.flavor.extra_specs)
        instance.system_metadata[laying.WISH] = laying.wish(wanted)
        instance.save()  # whatever comes of it, it is not tried again and again
        if utils.tpool_wrap(self)._planned(context, instance, wanted):
            self.places.settle(instance.uuid)
            self._attach(instance)
        else:
            self.places.forget(instance.uuid)
            self._note(instance.uuid, COMPLETE)

    def _planned(self, context: Any, instance: Any, wanted: request.Wanted) -> bool:
        """Have ready what makes of a server what is wanted; tells whether that is
        anything."""
        with self._sessions.of(context) as application:
            now = self._now(application, instance)
            becomes = Made(composite=now.composite, parts=wanted.parts or (),
                           filesets=wanted.filesets)
            removes = {*now.parts, *now.filesets} - {*becomes.parts, *becomes.filesets}
            adds = {*becomes.parts, *becomes.filesets} - {*now.parts, *now.filesets}
            if not removes and not adds:
                return False
            policy = KEEP if not removes else FORCE if wanted.force else REFUSE
            with application.images.deliveries.change(
                    now.request(wanted.answers), becomes.request(wanted.answers),
                    policy=policy) as delivery:
                self.places.prepare(instance.uuid, delivery, application.store, had=now,
                                    becomes=becomes)
            return True

    def _now(self, application: Application, instance: Any) -> Made:
        """What the server consists of."""
        found = self.places.read(instance.uuid)
        if found is not None:
            return found.made
        return (laying.read(instance.system_metadata)
                or completing.made(application, instance.image_ref))

    def _retry(self, context: Any, instance: Any, found: Laying) -> None:
        """:raises SplitImageError: a part cannot be had"""
        if found.layout.state == FAILED:
            utils.tpool_wrap(self)._renewed(context, instance.uuid, found)
            self._again(instance, found)
        self._attach(instance)

    def _renewed(self, context: Any, server: str, found: Laying) -> None:
        with self._sessions.of(context) as application:
            # Which images have the parts is learnt from these.
            for each in found.had, found.becomes:
                application.images.plans.goal(each.request())
            self.places.renew(server, application.store)

    def _again(self, instance: Any, found: Laying) -> Laying:
        """The record of a layout that failed and is tried again."""
        # What the guest has said of the last attempt, and may say once more, counts not.
        self.places.keep_before(instance.uuid,
                                self._console(instance))
        found = _with(found, state=LAYING, failed={}, begun=False)
        self.places.save(instance.uuid, found)
        return found

    def _stop(self, instance: Any, found: Laying | None) -> None:
        if found is None or found.layout.state != LAYING:
            self._note(instance.uuid, laying.told(found.layout) if found else COMPLETE)
            return
        self.places.save(instance.uuid, _with(found, state=FAILED, failed={laying.STOPPED: ""}))
        self.watch.add(instance.uuid)

    def _attach(self, instance: Any) -> None:
        """Give a server the disks of its record. One that does not run gets them when
        it is started."""
        server = instance.uuid
        found = self.places.read(server)
        if found is None:
            return
        guest = self._driver._host.get_guest(instance)
        if guest.get_power_state(self._driver._host) in _RUNS:
            self.places.save(server, _with(found, attached=True))
            try:
                guestdisks.attach(guest, self.places.disks(server), live=True)
            except Exception as error:
                self.places.save(server, _with(found, state=FAILED, attached=True,
                                               failed={"the disks": str(error)}))
                self.watch.add(server)
                raise exceptions.InvalidInput(what="the server", reason="it cannot be given "
                                              f"further disks: {error}") from error
            self.watch.add(server)
        self._note(server, laying.told(found.layout), found)

    def remember(self, instance: Any, wanted: request.Wanted) -> None:
        """What a server is asked to be when it is made."""
        instance.system_metadata[laying.WISH] = laying.wish(wanted)


def _with(found: Laying, **fields: Any) -> Laying:
    return msgspec.structs.replace(found, layout=msgspec.structs.replace(found.layout, **fields))

