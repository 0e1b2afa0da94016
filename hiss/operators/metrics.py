"""The state of a buffer in the text form of Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/.

Names are `hiss_<noun>_<unit>[_total]`. Labels are bounded: states of jobs, and the `limits.METRICS_KERNELS_MAX` busiest
kernels; the others are summed under `other`. Pure but for what it asks of the store; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hiss import limits
from hiss.errors import HissError
from hiss.model import NodeStatus
from hiss.store import Store
from hiss.workflow import EngineCounts, JobState

_GAUGES: Final = {  # name: attribute of the status, help
    "hiss_arena_bytes": ("arena_bytes", "Memory for blocks on their way."),
    "hiss_arena_free_bytes": ("arena_free_bytes", "Of the arena, what is free."),
    "hiss_disk_free_bytes": ("disk_free_bytes", "Free on the disk of the data directory."),
    "hiss_log_bytes": ("log_bytes", "Taken by the log's segments."),
    "hiss_log_segments": ("segments", "Segments of the log."),
    "hiss_room_bytes": ("room_bytes", "That the log may still take, promised or not."),
    "hiss_promised_bytes": ("promised_bytes", "Promised by reservations."),
    "hiss_promised_used_bytes": ("promised_used_bytes", "Of the promised bytes, those that are used."),
    "hiss_collections": ("collections", "Collections."),
    "hiss_streams": ("streams", "Streams, newest versions."),
    "hiss_streams_open": ("streams_open", "Streams that are not final."),
}
_COUNTERS: Final = {
    "hiss_received_blocks": ("blocks_received", "Blocks that came in since the start, declared gaps included."),
    "hiss_received_bytes": ("bytes_received", "Bytes of blocks that came in since the start."),
    "hiss_events": ("last_event", "Events that there have been."),
}
_KERNEL: Final = {  # name: entry of a kernel's report, help
    "hiss_kernel_blocks": ("blocks", "Blocks that reached a kernel."),
    "hiss_kernel_vetoed_blocks": ("vetoed", "Blocks that a filter vetoed."),
    "hiss_kernel_failed_blocks": ("failed", "Blocks without a result because a kernel failed."),
    "hiss_kernel_faults": ("faults", "Faults of a kernel: errors, and times over its budget."),
    "hiss_kernel_seconds": ("seconds", "Time that a kernel took."),
}


def exposition(store: Store) -> bytes:
    """All metrics, as the caller of `store` may see them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(store))
    return bytes(generate_latest(registry))


class _Snapshot(Collector):
    def __init__(self, store: Store) -> None:
        self._status = store.status()
        self._names = {info.hash: info.definition.name for info in store.kernels()}
        try:
            self._counts: EngineCounts | None = store.meow.counts()
        except HissError:
            self._counts = None

    def collect(self) -> Iterator[Metric]:
        status = self._status
        node = GaugeMetricFamily("hiss_node_info", "The node.", labels=["node", "version", "backend"])
        node.add_metric([status.node, status.version, status.kernel_backend], 1)
        yield node
        yield GaugeMetricFamily("hiss_start_time_seconds", "Start of the data process.", status.started_ns / 1e9)
        for name, (attribute, text) in _GAUGES.items():
            yield GaugeMetricFamily(name, text, getattr(status, attribute))
        for name, (attribute, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, getattr(status, attribute))
        yield from self._kernels()
        yield from _rules(status, self._counts)

    def _kernels(self) -> Iterator[Metric]:
        reports: list[tuple[str, Mapping[str, Any]]] = sorted(
            self._status.kernels.items(), key=lambda entry: -entry[1].get("blocks", 0)
        )
        shown, others = reports[: limits.METRICS_KERNELS_MAX], reports[limits.METRICS_KERNELS_MAX :]
        for name, (entry, text) in _KERNEL.items():
            metric = CounterMetricFamily(name, text, labels=["kernel", "hash"])
            for hash, report in shown:
                metric.add_metric([self._names.get(hash, ""), hash[:12]], report.get(entry, 0))
            if others:
                metric.add_metric(["other", ""], sum(report.get(entry, 0) for _, report in others))
            yield metric


def _rules(status: NodeStatus, counts: EngineCounts | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("hiss_rules_up", "Whether the rule engine answers.", int(counts is not None))
    if counts is None:
        return
    jobs = GaugeMetricFamily("hiss_jobs", "Jobs by their state.", labels=["state"])
    for state in JobState:
        jobs.add_metric([state.name.lower()], counts.jobs.get(state.name.lower(), 0))
    yield jobs
    lag = max(0, status.last_event - counts.event_seq)
    yield GaugeMetricFamily("hiss_events_lag", "Events that the rule engine has not dealt with.", lag)
