"""What the configuration of a service of OpenStack says of this project, which
runs inside it: in ``glance-api.conf`` and ``nova.conf``."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from splitimage_driver import conf as configuration

GROUP = "splitimage"
OPTS = [
    cfg.StrOpt("config_file",
               help="""The configuration file of splitimage-driver.

Possible values: a path; unset: the default places,
``/etc/splitimage/splitimage.conf`` and the like."""),
]
#: Of the scheduler: in ``nova.conf`` where that runs.
SCHEDULER_OPTS = [
    cfg.FloatOpt("weight_multiplier", default=1.0,
                 help="""How much it counts for the choice of a host that what a server needs of a
composite is there already.

Possible values: 0: nothing; more than 1: more than any of Nova's own weighers,
whose multipliers are 1 as a rule; less than 0: such hosts are avoided. The
metadata ``splitimage_weight_multiplier`` of a host aggregate win over this for
its hosts."""),
]


def files(conf: Any) -> list[str] | None:
    """:param conf: of the service
    :returns: None: the default places
    """
    conf.register_opts(OPTS, group=GROUP)
    named = conf[GROUP].config_file
    return [named] if named else None


def load(conf: Any) -> Any:
    """This project's configuration, by that of the service."""
    return configuration.load(files=files(conf))
