"""The machinery around the reconcilers: client, store, queue, status writes, leader election.

The only package that imports kopf or the Kubernetes client.
"""

from concordat.runtime.client import Cluster
from concordat.runtime.clock import Clock, FixedClock, SystemClock
from concordat.runtime.controller import Controller, Key, Obj, Result
from concordat.runtime.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Terminal,
    Transient,
    Unavailable,
)
from concordat.runtime.host import run
from concordat.runtime.kinds import CONFIGMAP, GVK, JOB, LEASE, NAMESPACE, POD, SECRET, KindLike
from concordat.runtime.leader import LeaderConfig, LeadershipLost
from concordat.runtime.logs import configure, fields
from concordat.runtime.status import write_status
from concordat.runtime.store import Store

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
    "LeadershipLost",
    "NotFound",
    "Obj",
    "Result",
    "Store",
    "SystemClock",
    "Terminal",
    "Transient",
    "Unavailable",
    "configure",
    "fields",
    "run",
    "write_status",
]
