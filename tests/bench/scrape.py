#!/usr/bin/env python3
"""Many machines scraped on a schedule, as Prometheus would: do all scrapes succeed, what do they cost, do operations feel it?

    MMLAB_BUILD_DIR=build/release /usr/bin/python3 tests/bench/scrape.py [--machines 1000] [--interval 15] [--rounds 2]
    MMLAB_BUILD_DIR=build/release /usr/bin/python3 tests/bench/scrape.py --prometheus

Prints one line a figure. Without --prometheus a client of its own scrapes, and operations are timed in pairs of windows, without and with
scrapes (A B A B ...), and compared as ratios. With it the real Prometheus scrapes what it discovers. Exits 1 when a scrape failed.
"""
import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from api import Api  # noqa: E402
from children import Children, Page, answers, free_port, start_server  # noqa: E402

PRESETS = ("686-64M", "686-pae-1G", "arm64-128M")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Scraper:
    """One keep-alive connection that asks for machine after machine, evenly over the interval."""

    def __init__(self, address, machines):
        self.connection = http.client.HTTPConnection(address, timeout=10)
        self.machines = machines
        self.seconds, self.failed, self.samples = [], 0, 0

    def one(self, machine):
        start = time.perf_counter()
        try:
            self.connection.request("GET", f"/probe?target={machine}", headers={"X-Prometheus-Scrape-Timeout-Seconds": "10"})
            answer = self.connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                self.failed += 1
            self.samples += sum(1 for line in body.splitlines() if not line.startswith(b"#"))
        except OSError:
            self.failed += 1
            self.connection.close()
        self.seconds.append(time.perf_counter() - start)

    def rounds(self, count, interval):
        step = interval / len(self.machines)
        due = time.monotonic()
        for _ in range(count):
            for machine in self.machines:
                time.sleep(max(0.0, due - time.monotonic()))
                self.one(machine)
                due += step



def operation_seconds(api, machine, seconds):
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        pfn = api.call("PageService", "AllocPages", machine=machine, gfp=1).outcome.value
        taken.append(time.perf_counter() - start)
        api.call("PageService", "FreePages", machine=machine, pfn=pfn)
    return taken


def scrape_by_prometheus(children, folder, server, machines, interval, rounds):
    """Failed scrapes of the real Prometheus that finds the machines by itself; prints what it knows of them."""
    configuration = os.path.join(folder, "prometheus.yml")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(f"global: {{scrape_interval: {interval:.0f}s, scrape_timeout: {min(interval, 10):.0f}s}}\n"
                   f"scrape_configs: [{{job_name: node, http_sd_configs: [{{url: 'http://{server.http}/sd/prometheus', refresh_interval: 5s}}]}}]\n")
    address = f"127.0.0.1:{free_port()}"
    children.start("prometheus", ["prometheus", f"--config.file={configuration}", f"--web.listen-address={address}",
                                  f"--storage.tsdb.path={folder}/tsdb", "--log.level=warn"])
    children.wait_for("Prometheus", lambda: answers(f"http://{address}/-/ready"))

    def query(text):
        result = json.loads(Page(f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': text})}").body)["data"]["result"]
        return float(result[0]["value"][1]) if result else 0
    children.wait_for("every machine to be a target", lambda: query("count(up)") == machines)
    time.sleep(interval * rounds)
    window = f"[{int(interval * (rounds + 2))}s]"
    failed = query(f"sum(count_over_time(up{window}) - sum_over_time(up{window}))")
    print(f"Prometheus: {query('count(up)'):.0f} targets, {query(f'sum(count_over_time(up{window}))'):.0f} scrapes, each target at least "
          f"{query(f'min(count_over_time(up{window}))'):.0f} times, failed {failed:.0f}, {query('avg(scrape_samples_scraped)'):.0f} samples a scrape, "
          f"p50 {query('quantile(0.5, scrape_duration_seconds)') * 1e3:.2f} ms p99 {query('quantile(0.99, scrape_duration_seconds)') * 1e3:.2f} ms")
    return failed


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--machines", type=int, default=1000)
    arguments.add_argument("--interval", type=float, default=15)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--prometheus", action="store_true", help="let the real Prometheus scrape")
    arguments.add_argument("--beside", metavar="ADDRESS", help="only scrape the machines of this server, each once a second, until killed")
    options = arguments.parse_args()
    if options.beside:
        Scraper(options.beside, [f"m{i}" for i in range(options.machines)]).rounds(10**6, 1)
    with tempfile.TemporaryDirectory() as folder:
        children = Children(folder)
        try:
            server = start_server(children)
            api = Api(server.grpc, folder)
            machines = [f"m{i}" for i in range(options.machines)]
            for i, name in enumerate(machines):
                api.call("MachineService", "CreateMachine", machine_id=name, spec={"preset": PRESETS[i % len(PRESETS)]})
            if options.prometheus:
                sys.exit(1 if scrape_by_prometheus(children, folder, server, options.machines, options.interval, options.rounds) else 0)
            cpu = lambda: float(next(line for line in Page(f"http://{server.http}/metrics").text.splitlines()
                                     if line.startswith("process_cpu_seconds_total ")).split()[1])
            scraper = Scraper(server.http, machines)
            before, start = cpu(), time.monotonic()
            scraper.rounds(options.rounds, options.interval)
            share = (cpu() - before) / (time.monotonic() - start)
            print(f"scrapes {len(scraper.seconds)} failed {scraper.failed} samples {scraper.samples / len(scraper.seconds):.0f} a probe")
            print(f"probe p50 {percentile(scraper.seconds, .5) * 1e3:.2f} ms p99 {percentile(scraper.seconds, .99) * 1e3:.2f} ms; "
                  f"server {share:.3f} cores for {options.machines} machines every {options.interval:.0f} s")
            ratios = {.5: [], .99: []}
            for _ in range(options.pairs):
                alone = operation_seconds(api, "machines/m0", 2)
                # A process of its own, so that it shares nothing with the one that takes the time.
                beside = subprocess.Popen([sys.executable, "-B", __file__, "--beside", server.http, "--machines", "50"])
                time.sleep(0.5)
                scraped = operation_seconds(api, "machines/m0", 2)
                beside.kill()
                beside.wait()
                for share, of_pairs in ratios.items():
                    of_pairs.append(percentile(scraped, share) / percentile(alone, share))
            for share, of_pairs in ratios.items():
                print(f"p{share * 100:.0f} of operations during scrapes / without: median {statistics.median(of_pairs):.2f} "
                      f"({min(of_pairs):.2f} .. {max(of_pairs):.2f})")
            sys.exit(1 if scraper.failed else 0)
        finally:
            children.stop()


if __name__ == "__main__":
    main()
