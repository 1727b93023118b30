#!/usr/bin/env python3
"""What deploy/observe runs: a server, a Prometheus, and a machine of each layout under the load of the tests. OBSERVE [SECONDS]"""
import os
import sys
import tempfile
import time

from api import Api, ROOT
from children import Children, answers, free_port, start_server
from load import Load

MACHINES = {"pc": ("686-1G", 0x08048000), "server": ("686-pae-4G", 0x08048000), "board": ("arm64-1G", 0x400000)}

COLLECTORS = "default,slabinfo,vmstat_all,pagetypeinfo,process,cgroup,ksmd"  # All that our dashboards show.


def prometheus_configuration(http):
    with open(os.path.join(ROOT, "deploy", "prometheus", "prometheus.yml"), encoding="utf-8") as shipped:
        text = shipped.read()
    for old, new in (("scrape_interval: 15s", "scrape_interval: 5s"), ("evaluation_interval: 15s", "evaluation_interval: 5s"),
                     ("refresh_interval: 30s", "refresh_interval: 5s"),
                     ("- url: http://localhost:9464/sd/prometheus\n", f"- url: http://{http}/sd/prometheus?collect={COLLECTORS}\n"),
                     ("localhost:9464", http)):
        assert old in text, old
        text = text.replace(old, new)
    return text + f"\nrule_files:\n  - {os.path.join(ROOT, 'deploy', 'prometheus', 'rules.yml')}\n"


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else None
    with tempfile.TemporaryDirectory(prefix="mmlab-observe-") as folder:
        children = Children(folder)
        try:
            server = start_server(children)
            api = Api(server.grpc, folder)
            configuration = os.path.join(folder, "prometheus.yml")
            with open(configuration, "w", encoding="utf-8") as file:
                file.write(prometheus_configuration(server.http))
            prometheus = f"127.0.0.1:{free_port()}"
            children.start("prometheus", ["prometheus", f"--config.file={configuration}", f"--web.listen-address={prometheus}",
                                          f"--storage.tsdb.path={folder}/tsdb", "--log.level=warn"])
            loads = []
            for name, (preset, base) in MACHINES.items():
                api.call("MachineService", "CreateMachine", machine_id=name, spec={"preset": preset})
                loads.append(Load(api, f"machines/{name}", base))
            children.wait_for("Prometheus", lambda: answers(f"http://{prometheus}/-/ready"))
            print(f"gRPC        {server.grpc}    mmlab --server {server.grpc} watch pc\n"
                  f"metrics     http://{server.http}/probe?target=pc\n"
                  f"Prometheus  http://{prometheus}/graph?g0.expr=node_buddyinfo_blocks&g0.tab=0    http://{prometheus}/alerts\n"
                  f"Grafana     MMLAB_PROMETHEUS_URL=http://{prometheus}, dashboards in deploy/grafana/dashboards", flush=True)
            end = None if seconds is None else time.monotonic() + seconds
            while end is None or time.monotonic() < end:
                for load in loads:
                    load.step()
                if loads[0].steps % 10 == 0:
                    loads[-1].squeeze(2)  # For those of swap and pressure.
                if loads[0].steps % 60 == 0:
                    loads[0].exhaust(1024)  # Something for the panels of reclaim and OOM kills, and for an alert.
                time.sleep(0.5)
        except KeyboardInterrupt:
            pass
        finally:
            children.stop()


if __name__ == "__main__":
    main()
