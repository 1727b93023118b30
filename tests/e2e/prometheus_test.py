#!/usr/bin/env python3
"""A real Prometheus and a real node_exporter against a running server: what they make of the simulated machines.

Starts mmlabd with a machine of each layout under a small load and Debian's Prometheus with the configuration that we ship. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/prometheus_test.py
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse

import grpc

import exposition
from api import Api, ROOT
from children import BUILD, Children, Page, answers, free_port
from load import Load

sys.path.insert(0, os.path.join(ROOT, "tests", "lint"))
import dashboards  # noqa: E402

SHIPPED_CONFIGURATION = os.path.join(ROOT, "deploy", "prometheus", "prometheus.yml")
PAGE_SIZE = 4096
COLLECTORS = "default,slabinfo,vmstat_all,pagetypeinfo,process,cgroup,ksmd"  # All that our dashboards show.

# Machine: preset, architecture as the metrics show it, an address where a small program can lie.
MACHINES = {
    "low": ("686-1G", "x86_32", 0x08048000),
    "pae": ("686-pae-4G", "x86_32", 0x08048000),
    "arm": ("arm64-1G", "arm64", 0x400000),
}

IRQ_PRESSURE = "node_pressure_irq_stalled_seconds_total"  # These kernels have no /proc/pressure/irq.

# What Linux does not print on a layout: queries that use it have no result there, for good.
NOT_ON = {
    "low": {"node_memory_DirectMap1G_bytes", "node_memory_DirectMap2M_bytes", IRQ_PRESSURE},
    "pae": {"node_memory_DirectMap1G_bytes", IRQ_PRESSURE},
    "arm": {"node_memory_DirectMap1G_bytes", "node_memory_DirectMap2M_bytes", "node_memory_DirectMap4k_bytes", IRQ_PRESSURE},
}

# What machines do not simulate yet, and so do not export. The test fails for a name that has come to exist: strike it out then.
NOT_SIMULATED = set()

# Complaints of promtool about names that are the kernel's; the real node_exporter gets them too.
CAMEL_CASE = r"^node_memory_\w+ metric names should be written in 'snake_case' not 'camelCase'$"
KERNEL_ABBREVIATION = r"^node_vmstat_\w+ metric names should not contain abbreviated units$"

HOSTILE_NAMES = ['quote"d', "new\nline", "back\\slash", "{brace}", "UPPER", "-dash", "dash-", "ünïcode", "a" * 64, "a" * 65536, "", " ", "a/b", "..",
                 "tab\t", "nul\0"]


def promtool_complaints(body):
    """The lines that `promtool check metrics` prints; an answer that it can't parse at all fails."""
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode in (0, 3), text  # 3: it read everything and has complaints.
    return [line for line in text.splitlines() if line.strip()]


def acceptance_queries():
    with open(os.path.join(ROOT, "tests", "e2e", "node_exporter_full.tsv")) as lines:
        for line in lines:
            if not line.startswith("#"):
                panel, title, reference, query = line.rstrip("\n").split("\t")
                yield f"{panel} {title} {reference}", query


def metric_names(query):
    return set(re.findall(r"\bnode_\w+", query))


class PrometheusTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="mmlab-prometheus-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.children = Children(cls.folder.name)
        cls.addClassCleanup(cls.children.stop)
        cls.grpc, cls.http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        cls.children.start("mmlabd", [os.path.join(BUILD, "bin", "mmlabd"), "--grpc-address", cls.grpc, "--http-address", cls.http,
                                      "--data-dir", os.path.join(cls.folder.name, "data")])
        cls.children.wait_for("the server", lambda: answers(f"http://{cls.http}/metrics"))
        cls.api = Api(cls.grpc, cls.folder.name)
        cls.addClassCleanup(cls.api.close)
        cls.loads = {}
        for name, (preset, _, base) in MACHINES.items():
            cls.api.call("MachineService", "CreateMachine", machine_id=name, spec={"preset": preset}, labels={"course": "os-1", "seat": name})
            cls.loads[name] = Load(cls.api, f"machines/{name}", base)
            cls.loads[name].step()
        cls.start_prometheus()

    @classmethod
    def start_prometheus(cls):
        with open(SHIPPED_CONFIGURATION) as shipped:
            configuration = shipped.read()
        for old, new in (("- url: http://localhost:9464/sd/prometheus\n", f"- url: http://{cls.http}/sd/prometheus?collect={COLLECTORS}\n"),
                         ("localhost:9464", cls.http), ("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s"),
                         ("evaluation_interval: 15s", "evaluation_interval: 1s"),
                         ("refresh_interval: 30s", "refresh_interval: 1s")):
            assert old in configuration, old
            configuration = configuration.replace(old, new)
        configuration += f"\nrule_files:\n  - {os.path.join(ROOT, 'deploy', 'prometheus', 'rules.yml')}\n"
        path = os.path.join(cls.folder.name, "prometheus.yml")
        with open(path, "w") as file:
            file.write(configuration)
        cls.prometheus = f"127.0.0.1:{free_port()}"
        cls.children.start("prometheus", ["prometheus", f"--config.file={path}", f"--web.listen-address={cls.prometheus}",
                                          f"--storage.tsdb.path={cls.folder.name}/tsdb", "--log.level=warn"])
        cls.children.wait_for("Prometheus", lambda: answers(f"http://{cls.prometheus}/-/ready"))

    # --- Asking ---

    def get(self, path, **headers):
        return Page(f"http://{self.http}{path}", {name.replace("_", "-"): value for name, value in headers.items()})

    def probe(self, machine, parameters=""):
        page = self.get(f"/probe?target={machine}{parameters}")
        self.assertEqual(page.status, 200, page.body)
        return page

    def ask_prometheus(self, path, **parameters):
        page = Page(f"http://{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(page.body)
        self.assertEqual(answer["status"], "success", answer)
        return answer["data"]

    def query(self, query):
        return self.ask_prometheus("query", query=query)["result"]

    @staticmethod
    def selector(machine):
        return f'{{instance="{machine}",job="node"}}'

    def wait_for_scrapes(self, count):
        """Until Prometheus has so many samples of every target from now on."""
        for load in self.loads.values():
            load.step()
        wanted = len(MACHINES) + 1

        def scraped():
            series = self.query(f"count_over_time(up[{count + 1}s]) >= {count}")
            return len(series) == wanted and len(self.query("up == 1")) == wanted
        self.children.wait_for(f"{count} scrapes of {wanted} targets", scraped)

    def discovery(self, parameters="", **headers):
        page = self.get("/sd/prometheus" + parameters, **headers)
        self.assertEqual(page.status, 200, page.body)
        self.assertEqual(page.headers["Content-Type"], "application/json")
        return {group["labels"]["instance"]: group for group in json.loads(page.body)}

    # --- The real Prometheus ---

    def test_all_targets_are_up(self):
        self.wait_for_scrapes(2)
        targets = self.ask_prometheus("targets", state="active")["activeTargets"]
        self.assertEqual(sorted((t["labels"]["job"], t["labels"]["instance"]) for t in targets),
                         [("mmlab", self.http)] + [("node", name) for name in sorted(MACHINES)])
        for target in targets:
            self.assertEqual(target["health"], "up", target)
            self.assertLessEqual(set(target["labels"]), {"job", "instance"}, "no labels of ours on a target")

    def test_queries_of_node_exporter_full(self):
        self.wait_for_scrapes(3)
        seen = set()
        by_default = {machine: exposition.Samples(self.probe(machine).text).names() for machine in MACHINES}
        for name, query in acceptance_queries():
            names = metric_names(query)
            seen |= names
            for machine in MACHINES:
                missing = names & (NOT_ON[machine] | NOT_SIMULATED)
                with self.subTest(query=name, machine=machine):
                    self.assertLessEqual(names - missing, by_default[machine])  # With nothing asked for.
                    concrete = query.replace("{S}", self.selector(machine)).replace("[R]", "[10s]")
                    self.assertEqual(len(self.query(concrete)), 0 if missing else 1, f"{concrete} (missing: {missing or 'nothing'})")
        self.assertLessEqual(NOT_SIMULATED, seen, "names in NOT_SIMULATED that no query uses")

    def test_dashboard_variables_fill(self):
        self.wait_for_scrapes(2)
        info = {series["metric"]["instance"]: series["metric"] for series in self.query("node_uname_info")}
        self.assertEqual(sorted(info), sorted(MACHINES))
        for machine, (_, arch, _) in MACHINES.items():
            self.assertEqual(info[machine]["job"], "node")
            self.assertEqual(info[machine]["nodename"], machine)
            self.assertEqual(info[machine]["machine"], "aarch64" if arch == "arm64" else "i686")
            self.assertEqual(info[machine]["domainname"], "(none)")
            self.assertTrue(info[machine]["release"].startswith("6.1."), info[machine])

    def test_uptime_processes_and_collector_panels(self):
        self.wait_for_scrapes(2)
        one_series = ["node_time_seconds{S} - node_boot_time_seconds{S}", "rate(node_forks_total{S}[10s])", "node_processes_threads{S}",
                      "node_processes_max_threads{S}", "node_processes_pids{S}", "node_processes_max_processes{S}"]
        one_series += [f'node_scrape_collector_{what}{{S}} and on(collector) label_replace(up{{S}}, "collector", "{name}", "", "")'
                       for what in ("success", "duration_seconds") for name in ("meminfo", "zoneinfo", "uname")]
        for query in one_series:
            for machine in MACHINES:
                with self.subTest(query=query, machine=machine):
                    self.assertEqual(len(self.query(query.replace("{S}", self.selector(machine)))), 1)

    def test_alert_and_recording_rules_evaluate(self):
        self.wait_for_scrapes(3)
        per_machine = {
            'rate(node_vmstat_pgmajfault{job="node"}[10s])',
            '100 - (node_memory_MemAvailable_bytes{job="node"} / node_memory_MemTotal_bytes{job="node"} * 100)',
            "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
            "min_over_time(node_memory_MemFree_bytes[1w]) / node_memory_MemTotal_bytes",
        }
        for query in per_machine:
            with self.subTest(query=query):
                self.assertEqual({series["metric"]["instance"] for series in self.query(query)}, set(MACHINES))

    def test_memory_runs_out_and_the_alert_says_so(self):
        self.wait_for_scrapes(2)
        self.loads["low"].exhaust(1024)
        self.wait_for_scrapes(2)
        killed = lambda: {series["metric"]["instance"]: float(series["value"][1]) for series in self.query("increase(node_vmstat_oom_kill[30m])")}
        self.children.wait_for("the kill to be seen", lambda: killed().get("low", 0) > 0)
        self.assertEqual([machine for machine, kills in killed().items() if kills > 0], ["low"])
        self.assertGreater(float(self.query('node_vmstat_pgsteal_kswapd{instance="low"}')[0]["value"][1]), 0)
        firing = lambda: [alert["labels"]["instance"] for alert in self.ask_prometheus("alerts")["alerts"]
                          if alert["labels"]["alertname"] == "MachineOomKill" and alert["state"] == "firing"]
        self.children.wait_for("the alert", lambda: firing() == ["low"])
        self.assertEqual({rule["health"] for group in self.ask_prometheus("rules")["groups"] for rule in group["rules"]}, {"ok"})

    def test_every_panel_of_our_dashboards_has_data(self):
        with self.assertRaises(grpc.RpcError):  # So that there is a call that failed.
            self.api.call("MachineService", "GetMachine", name="machines/nobody")
        self.wait_for_scrapes(2)
        self.loads["low"].exhaust(1024)
        self.wait_for_scrapes(3)
        values, silent = [], []
        for dashboard, panel, reference, unit, query in dashboards.queries():
            concrete = query.replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "30s")
            series = self.query(concrete)
            if not series:
                silent.append(f"{dashboard} / {panel} {reference}: {concrete}")
            for one in sorted(series, key=lambda one: -float(one["value"][1]))[:4]:
                labels = ",".join(f"{k}={v}" for k, v in sorted(one["metric"].items()) if k not in ("__name__", "job"))
                values.append(f"{dashboard:14} {panel:40} {reference} {float(one['value'][1]):16.6g} {unit:12} {labels}")
        self.assertEqual(silent, [])
        print("\n".join(values))  # What a person would see, as text.

    def test_a_deleted_machine_leaves(self):
        self.api.call("MachineService", "CreateMachine", machine_id="short", spec={"preset": "686-64M"})
        self.children.wait_for("the new machine to be scraped", lambda: len(self.query('up{instance="short"} == 1')) == 1)
        self.api.call("MachineService", "DeleteMachine", name="machines/short")
        self.assertNotIn("short", self.discovery())
        self.assertEqual(self.get("/probe?target=short").status, 404)
        self.children.wait_for("its series to go stale", lambda: not self.query('up{instance="short"}'))

    # --- What is served ---

    def test_promtool_accepts_every_page(self):
        self.assertEqual(promtool_complaints(self.get("/metrics").body), [])
        for machine in MACHINES:
            for line in promtool_complaints(self.probe(machine).body):
                self.assertRegex(line, CAMEL_CASE)
            for line in promtool_complaints(self.probe(machine, "&collect=pagetypeinfo,vmstat_all,slabinfo,process").body):
                self.assertRegex(line, KERNEL_ABBREVIATION)

    def test_a_second_parser_reads_the_same(self):
        for page in [self.get("/metrics")] + [self.probe(machine) for machine in MACHINES]:
            self.assertEqual(page.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
            self.assertGreater(len(exposition.Samples(page.text).values), 50)

    def test_gzip_says_the_same_in_less(self):
        import gzip
        page = self.get("/probe?target=arm&collect=meminfo", Accept_Encoding="gzip")
        self.assertEqual(page.headers["Content-Encoding"], "gzip")
        plain = exposition.Samples(self.probe("arm", "&collect=meminfo").text)
        packed = exposition.Samples(gzip.decompress(page.body).decode())
        durations = "node_scrape_collector_duration_seconds"
        self.assertEqual({k: v for k, v in plain.values.items() if k[0] != durations},
                         {k: v for k, v in packed.values.items() if k[0] != durations})

    def test_size_of_a_probe(self):
        for machine in MACHINES:
            page = self.probe(machine)
            self.assertLessEqual(len(exposition.Samples(page.text).values), 360)
            self.assertLessEqual(len(page.body), 48 * 1024)
            self.assertLessEqual(len(self.get(f"/probe?target={machine}", Accept_Encoding="gzip").body), 8 * 1024)

    def test_identities_hold_after_every_step(self):
        for _ in range(5):
            for machine, load in self.loads.items():
                load.step()
                # CPUs add their part of the free pages to the zone's count once a second, as in the kernel.
                self.api.batch(f"machines/{machine}", [("advance_time", {"nanoseconds": 10**9})])
                samples = exposition.Samples(self.probe(machine).text)
                self.assertEqual(exposition.broken_identities(samples, PAGE_SIZE), [], machine)

    def test_a_probe_moves_nothing(self):
        before = self.api.call("MachineService", "GetMachine", name="machines/arm").machine
        for _ in range(3):
            self.probe("arm", "&collect=" + ",".join(("meminfo", "vmstat_all", "pagetypeinfo", "mmlab", "zoneinfo", "buddyinfo")))
        after = self.api.call("MachineService", "GetMachine", name="machines/arm").machine
        self.assertEqual((before.operations_applied, before.now_nanoseconds, before.state_hash),
                         (after.operations_applied, after.now_nanoseconds, after.state_hash))

    # --- The real node_exporter as judge ---

    def test_node_exporter_says_the_same(self):
        for machine in MACHINES:
            with self.subTest(machine=machine):
                proc = self.export(machine, "proc")
                ours = exposition.Samples(self.probe(machine, "&collect=meminfo,vmstat_all,buddyinfo,zoneinfo,slabinfo,stat,cpu,loadavg,pressure").text)
                theirs = self.node_exporter(machine, proc)
                for kind in ("values", "types"):
                    mine, judge = (self.judged(getattr(samples, kind)) for samples in (ours, theirs))
                    self.assertEqual(mine, judge, kind)
                self.assertGreater(len(self.judged(ours.values)), 100)

    def test_node_exporter_reads_sysfs_the_same(self):
        machine, collectors = "arm", ("ksmd", "meminfo_numa")  # The layout whose kernel has all of these files.
        sysfs = os.path.join(self.folder.name, "sys")
        for path in self.api.call("ProcService", "ListProcFiles", parent=f"machines/{machine}", page_size=1000).paths:
            if not path.startswith(("/sys/kernel/mm/ksm/", "/sys/devices/system/node/")):
                continue
            file = os.path.join(sysfs, os.path.relpath(path, "/sys"))
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(file, "wb") as written:
                written.write(self.api.call("ProcService", "ReadProcFile", machine=f"machines/{machine}", path=path).content)
        ours = exposition.Samples(self.probe(machine, "&collect=" + ",".join(collectors)).text)
        theirs = self.exporter("sysfs_exporter", "prometheus-node-exporter", f"--path.sysfs={sysfs}", "--collector.disable-defaults",
                               *(f"--collector.{name}" for name in collectors), listen="--web.listen-address")
        for kind in ("values", "types"):
            mine, judge = ({key: value for key, value in getattr(samples, kind).items()
                            if re.match(r"node_(ksmd|memory_numa)_", key[0] if isinstance(key, tuple) else key)} for samples in (ours, theirs))
            self.assertEqual(mine, judge, kind)
        self.assertGreater(len(ours.values), 45)

    def test_process_exporter_says_the_same(self):
        configuration = os.path.join(self.folder.name, "process-exporter.yml")
        with open(configuration, "w") as file:
            file.write('process_names: [{name: "{{.Comm}}", cmdline: [".*"]}]\n')
        for machine in MACHINES:
            with self.subTest(machine=machine):
                self.loads[machine].step()
                proc = self.export(machine, "proc-of-processes")
                ours = exposition.Samples(self.probe(machine, "&collect=process").text)
                theirs = self.exporter(f"process_exporter-{machine}", "prometheus-process-exporter", "-procfs", proc, "-config.path",
                                       configuration, listen="-web.listen-address")
                mine = {key: value for key, value in ours.values.items() if key[0].startswith("namedprocess_")}
                # Its counters begin when it does; of a group without processes it knows only what it saw.
                gauges = {key: value for key, value in mine.items() if ours.types.get(key[0]) == "gauge"}
                alive = {dict(labels)["groupname"] for (name, labels), value in gauges.items() if name.endswith("num_procs") and value > 0}
                gauges = {key: value for key, value in gauges.items() if dict(key[1])["groupname"] in alive}
                self.assertEqual(gauges, {key: theirs.values.get(key) for key in gauges})
                self.assertEqual({key for key in mine if dict(key[1])["groupname"] in alive} - set(theirs.values), set())
                self.assertEqual({name: kind for name, kind in ours.types.items() if name.startswith("namedprocess_")},
                                 {name: theirs.types.get(name) for name in ours.types if name.startswith("namedprocess_")})
                self.assertIn("worker", alive)

    def export(self, machine, name):
        folder = os.path.join(self.folder.name, f"{name}-{machine}")
        os.makedirs(folder)
        exported = subprocess.run([os.path.join(BUILD, "bin", "mmlab"), "--server", self.grpc, "proc", "export", machine, folder],
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        self.assertEqual((exported.returncode, exported.stderr), (0, ""))
        return folder

    def exporter(self, name, *command, listen):
        """What an exporter says on a port of its own."""
        address = f"127.0.0.1:{free_port()}"
        self.children.start(name, [*command, listen, address])
        self.children.wait_for(name, lambda: answers(f"http://{address}/metrics"))
        return exposition.Samples(Page(f"http://{address}/metrics").text)

    def node_exporter(self, machine, proc):
        collectors = ("meminfo", "vmstat", "buddyinfo", "zoneinfo", "slabinfo", "stat", "cpu", "loadavg", "pressure")
        return self.exporter(f"node_exporter-{machine}", "prometheus-node-exporter", f"--path.procfs={proc}", "--collector.disable-defaults",
                             "--collector.vmstat.fields=.*", *(f"--collector.{name}" for name in collectors), listen="--web.listen-address")

    @staticmethod
    def judged(items):
        """Of samples or types: those that come from the files. prometheus-cpp prints 16 digits of a double, which has nearly 17."""
        rounded = lambda value: float(f"{value:.15g}") if isinstance(value, float) else value
        name = lambda key: key[0] if isinstance(key, tuple) else key
        # Interrupts and guests are not simulated: the exporter makes zeros of lines and columns that are not there.
        files = (r"node_(?!intr|cpu_guest)(memory|vmstat|buddyinfo|zoneinfo|slabinfo|cpu_seconds|load\d|pressure|boot_time|forks|procs"
                 r"|context_switches)")
        return {key: rounded(value) for key, value in items.items() if re.match(files, name(key))}

    # --- The server's own metrics ---

    def test_server_metrics_count(self):
        samples = exposition.Samples(self.get("/metrics").text)
        operations = lambda of: of.value("mmlab_operations_total", operation="fork")
        batch = {"grpc_type": "unary", "grpc_service": "mmlab.v1.OperationService", "grpc_method": "ExecuteBatch"}
        before = operations(samples), samples.value("grpc_server_handled_total", grpc_code="OK", **batch)
        self.loads["arm"].step()
        self.get("/probe?target=nosuch")
        samples = exposition.Samples(self.get("/metrics").text)
        self.assertEqual(operations(samples), before[0] + 1)
        self.assertGreater(samples.value("grpc_server_handled_total", grpc_code="OK", **batch), before[1])
        self.assertEqual(samples.value("grpc_server_started_total", grpc_type="bidi_stream", grpc_service="mmlab.v1.OperationService",
                                       grpc_method="Execute"), 0)
        self.assertGreaterEqual(samples.value("mmlab_machines", arch="x86_32", state="running"), 2)
        self.assertGreaterEqual(samples.value("mmlab_machines_created_total", arch="arm64"), 1)
        self.assertGreater(samples.value("mmlab_machines_simulated_memory_bytes"), 5 << 30)
        self.assertGreaterEqual(samples.value("mmlab_http_requests_total", handler="/probe", code="404"), 1)
        for name in ("mmlab_build_info", "process_resident_memory_bytes", "mmlab_processes", "mmlab_machines_host_memory_bytes",
                     "mmlab_worker_threads", "mmlab_batch_operations_bucket", "mmlab_probe_duration_seconds_bucket"):
            self.assertTrue(samples.has(name), name)
        for part in ("journal", "snapshot", "tenant"):
            self.assertEqual([name for name in samples.names() if name.startswith(f"mmlab_{part}")], [], "no state yet, so no metric")

    # --- Discovery and the probe's answers ---

    def test_discovery_describes_every_machine(self):
        groups = self.discovery(Host="lab.example:9464")
        for machine, (_, arch, _) in MACHINES.items():
            self.assertEqual(groups[machine], {
                "targets": ["lab.example:9464"],
                "labels": {"__metrics_path__": "/probe", "__param_target": machine, "instance": machine, "__meta_mmlab_arch": arch,
                           "__meta_mmlab_state": "running", "__meta_mmlab_label_course": "os-1", "__meta_mmlab_label_seat": machine}})

    def test_discovery_filters_and_shards(self):
        self.assertEqual(set(self.discovery("?arch=arm64")), {"arm"})
        self.assertEqual(set(self.discovery("?state=quarantined")), set())
        self.assertEqual(set(self.discovery("?label=course%3Dos-1&label=seat%3Dpae")), {"pae"})
        self.assertEqual(set(self.discovery("?tenant=nobody")), set())
        self.assertEqual(self.discovery("?collect=meminfo,vmstat")["arm"]["labels"]["__param_collect"], "meminfo,vmstat")
        shards = [set(self.discovery(f"?shard={i}&total_shards=3")) for i in range(3)]
        self.assertEqual(sorted(sum((list(shard) for shard in shards), [])), sorted(self.discovery()))
        for bad in ("?arch=mips", "?state=happy", "?label=novalue", "?shard=3&total_shards=3", "?shard=1", "?collect=nosuch", "?total_shards=x&shard=0"):
            self.assertEqual(self.get("/sd/prometheus" + bad).status, 400, bad)
        self.assertEqual(self.get("/sd/prometheus", Host='evil"host').status, 400)

    def test_answers_of_the_probe(self):
        for path, status in (("/probe", 400), ("/probe?target=", 400), ("/probe?target=arm&target=low", 400), ("/probe?target=nosuch", 404),
                             ("/probe?target=arm&collect[]=nosuch", 400), ("/probe?target=arm&collect=meminfo&exclude[]=vmstat", 400),
                             ("/probe?target=machines/arm", 200), ("/probe?target=arm&collect[]=meminfo&collect[]=uname", 200),
                             ("/probe?target=" + urllib.parse.quote('a"b\n{}'), 404), ("/probe?target=" + "a" * 5000, 404), ("/nosuch", 404)):
            with self.subTest(path=path[:60]):
                self.assertEqual(self.get(path).status, status)
        self.assertEqual(self.get("/probe?target=arm", X_Prometheus_Scrape_Timeout_Seconds="0").status, 503)
        self.assertEqual(self.get("/probe?target=arm", X_Prometheus_Scrape_Timeout_Seconds="10").status, 200)
        only = exposition.Samples(self.probe("arm", "&collect=uname,time").text)
        self.assertEqual(only.names(), {"node_uname_info", "node_time_seconds", "node_scrape_collector_duration_seconds", "node_scrape_collector_success"})

    def test_hostile_names_are_refused(self):
        for name in HOSTILE_NAMES:
            with self.subTest(name=name[:20]), self.assertRaises((grpc.RpcError, ValueError)) as refused:
                self.api.call("MachineService", "CreateMachine", machine_id=name, spec={"preset": "686-64M"})
            if isinstance(refused.exception, grpc.RpcError):
                self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        for labels in ({"bad key": "x"}, {"UPPER": "x"}, {"key": "new\nline"}, {"key": "v" * 64}, {"": "x"}):
            with self.subTest(labels=labels), self.assertRaises(grpc.RpcError) as refused:
                self.api.call("MachineService", "CreateMachine", machine_id="hostile", spec={"preset": "686-64M"}, labels=labels)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        with self.assertRaises(grpc.RpcError) as refused:
            self.api.call("MachineService", "CreateMachine", machine_id="hostile", spec={"preset": "686-64M", "hostname": 'a"\n# HELP x\n'})
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(promtool_complaints(self.get("/metrics").body), [])

    def test_the_shipped_configuration_is_valid(self):
        subprocess.run(["promtool", "check", "config", SHIPPED_CONFIGURATION], check=True, capture_output=True)


if __name__ == "__main__":
    unittest.main()
