"""Metrics of the controller, in controller-runtime's vocabulary, which people and dashboards know."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_TOTAL = Counter(
    "concordat_reconcile",
    "Reconciles by outcome: success, requeue_after, conflict, transient, terminal, api_error or bug.",
    ["controller", "result"],
)
RECONCILE_SECONDS = Histogram(
    "concordat_reconcile_duration_seconds",
    "How long one reconcile took.",
    ["controller"],
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300),
)
QUEUE_DEPTH = Gauge("concordat_workqueue_depth", "Keys that are due and wait for a worker.", ["controller"])
QUEUE_RETRIES = Counter("concordat_workqueue_retries", "Keys put back after a failure.", ["controller"])
LONGEST_RUNNING = Gauge(
    "concordat_workqueue_longest_running_seconds", "Age of the oldest reconcile in progress.", ["controller"]
)
WATCH_LAST_EVENT = Gauge(
    "concordat_watch_last_event_timestamp_seconds", "When an object of the kind last came in.", ["kind"]
)
RESYNC_REMOVED = Counter(
    "concordat_cache_resync_removed", "Deleted objects found by a list and not by a watch.", ["kind"]
)
LEADER = Gauge("concordat_leader", "1 while this process acts, 0 while it stands by.")
LOOP_BLOCK = Gauge(
    "concordat_event_loop_longest_block_seconds", "Longest time that one piece of work held all others up."
)
