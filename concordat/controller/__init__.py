"""The machinery around the reconcilers: client, cache, queue, status writes, leader election.

The only package that imports kopf or the Kubernetes client.
"""

from concordat.controller.cache import Cache
from concordat.controller.client import Cluster, TokenUser
from concordat.controller.clock import Clock, FixedClock, SystemClock
from concordat.controller.concurrency import gather_bounded
from concordat.controller.definition import Controller, Key, Obj, Result, Watch, Watches
from concordat.controller.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from concordat.controller.kinds import CONFIGMAP, GVK, JOB, LEASE, NAMESPACE, POD, SECRET, KindLike
from concordat.controller.leader import LeaderConfig, default_identity
from concordat.controller.logs import configure, fields
from concordat.controller.manager import Options, run
from concordat.controller.status import write_status
from concordat.errors import Terminal, Transient

__all__ = [
    "CONFIGMAP",
    "GVK",
    "JOB",
    "LEASE",
    "NAMESPACE",
    "POD",
    "SECRET",
    "AlreadyExists",
    "ApiError",
    "Cache",
    "Clock",
    "Cluster",
    "Conflict",
    "Controller",
    "FixedClock",
    "Forbidden",
    "Invalid",
    "Key",
    "KindLike",
    "LeaderConfig",
    "NotFound",
    "Obj",
    "Options",
    "QuotaExceeded",
    "Result",
    "SystemClock",
    "Terminal",
    "TokenUser",
    "Transient",
    "Unavailable",
    "Watch",
    "Watches",
    "configure",
    "default_identity",
    "fields",
    "gather_bounded",
    "run",
    "write_status",
]
