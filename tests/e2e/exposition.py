"""Reading the text that Prometheus reads, by Debian's python3-prometheus-client, and the identities that hold in every probe."""
import collections

from prometheus_client.parser import text_string_to_metric_families


class Samples:
    """The samples of one answer: {(name, labels): value} and {family: type}."""

    def __init__(self, text):
        self.values = {}
        self.types = {}
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.values, f"twice: {key}"
                assert sample.timestamp is None, f"a timestamp: {key}"
                self.values[key] = sample.value
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        assert len(lines) == len(self.values), "the parser saw other samples than there are lines"

    def value(self, name, **labels):
        return self.values[(name, tuple(sorted(labels.items())))]

    def has(self, name):
        return any(key[0] == name for key in self.values)

    def names(self):
        return {name for name, _ in self.values}

    def by_zone(self, name):
        """{zone: value} of a metric with the labels node and zone."""
        return {dict(labels)["zone"]: value for (sample, labels), value in self.values.items() if sample == name}

    def blocks(self):
        """{zone: pages in free blocks} of node_buddyinfo_blocks."""
        pages = collections.Counter()
        for (sample, labels), value in self.values.items():
            if sample == "node_buddyinfo_blocks":
                labels = dict(labels)
                pages[labels["zone"]] += value * 2 ** int(labels["size"])
        return dict(pages)


def broken_identities(samples, page_size):
    """The identities of the contract (its numbers) that concern zones and totals; a line for each that does not hold."""
    broken = []

    def expect(number, holds, what):
        if not holds:
            broken.append(f"identity {number}: {what}")

    free = samples.by_zone("node_zoneinfo_nr_free_pages")
    managed = samples.by_zone("node_zoneinfo_managed_pages")
    mem_free, mem_total = samples.value("node_memory_MemFree_bytes"), samples.value("node_memory_MemTotal_bytes")
    expect(1, sum(free.values()) * page_size == mem_free, f"{free} x {page_size} != MemFree {mem_free}")
    expect(2, samples.blocks() == free, f"buddyinfo {samples.blocks()} != nr_free_pages {free}")
    expect(3, sum(managed.values()) * page_size == mem_total, f"{managed} x {page_size} != MemTotal {mem_total}")
    if samples.has("node_memory_HighTotal_bytes"):
        for field, whole in (("Total", mem_total), ("Free", mem_free)):
            high, low = (samples.value(f"node_memory_{part}{field}_bytes") for part in ("High", "Low"))
            expect(6, high + low == whole, f"High{field} {high} + Low{field} {low} != {whole}")
    for zone in managed:
        low_to_high = [samples.by_zone(f"node_zoneinfo_{mark}_pages")[zone] for mark in ("min", "low", "high")]
        sizes = [managed[zone]] + [samples.by_zone(f"node_zoneinfo_{size}_pages")[zone] for size in ("present", "spanned")]
        expect(7, low_to_high == sorted(low_to_high), f"{zone}: min, low, high {low_to_high}")
        expect(7, sizes == sorted(sizes), f"{zone}: managed, present, spanned {sizes}")
    return broken
