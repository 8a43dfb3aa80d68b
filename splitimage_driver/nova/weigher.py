"""The scheduler's weigher that prefers hosts which hold what a server needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import context as contexts
from nova import exception, objects
from nova.scheduler import utils, weights
from oslo_log import log as logging

from splitimage_driver.conf import hosted
from splitimage_driver.nova import holdings, matching, request
from splitimage_driver.nova.matching import Need

CONF = nova.conf.CONF
CONF.register_opts(hosted.SCHEDULER_OPTS, group=hosted.GROUP)
LOG = logging.getLogger(__name__)
#: In a server's system metadata, see :mod:`splitimage_driver.nova.driver`.
_COMPOSED = "composed_image_ref"


class SplitImageWeigher(weights.BaseHostWeigher):
    """The best host counts 1, the others the share of it that they hold."""

    minval = 0

    def weight_multiplier(self, host_state: Any) -> Any:
        return utils.get_weight_multiplier(host_state, "splitimage_weight_multiplier",
                                           CONF[hosted.GROUP].weight_multiplier)

    def weigh_objects(self, weighed_obj_list: Any, weight_properties: Any) -> list[float]:
        hosts = [each.obj for each in weighed_obj_list]
        try:
            return self._weights(hosts, weight_properties)
        except Exception as error:
            # A server runs everywhere; only the start may take longer.
            LOG.warning("a host is chosen without regard to what the hosts hold: %s", error)
            return [0.0] * len(hosts)

    def _weights(self, hosts: list[Any], spec: Any) -> list[float]:
        nothing = [0.0] * len(hosts)
        image = spec.image.id if spec.image and "id" in spec.image else None
        if not image or not any(self.weight_multiplier(host) for host in hosts):
            return nothing
        held = [matching.read(told) if (told := (host.stats or {}).get(holdings.KEY))
                else holdings.Holdings() for host in hosts]
        # Before anything is asked of a database: most images are no composites.
        if not matching.concerns(image, held):
            return nothing
        return list(map(float, matching.weigh(self._need(spec, image), held)))

    def _weigh_object(self, obj: Any, weight_properties: Any) -> float:
        return self._weights([obj], weight_properties)[0]

    @staticmethod
    def _need(spec: Any, image: str) -> Need:
        context = contexts.get_admin_context()
        metadata: Mapping[str, str]
        try:
            # A new server is nowhere else yet.
            found = objects.BuildRequest.get_by_instance_uuid(context, spec.instance_uuid)
            metadata, own = found.instance.metadata, ""
        except exception.BuildRequestNotFound:
            where = objects.InstanceMapping.get_by_instance_uuid(context, spec.instance_uuid)
            with contexts.target_cell(context, where.cell_mapping) as cell:
                instance = objects.Instance.get_by_uuid(
                    cell, spec.instance_uuid, expected_attrs=["metadata", "system_metadata"])
            metadata, own = instance.metadata, instance.system_metadata.get(_COMPOSED, "")
        return Need(image=image, project=spec.project_id, own=own,
                    wanted=request.wanted(metadata, spec.flavor.extra_specs))
