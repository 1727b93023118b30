#!/usr/bin/env python3
"""Holds the dashboards of deploy/grafana to the rules of grafana/dashboard-linter, and reads their queries for the tests.

Run alone: python3 tests/lint/dashboards.py; with --queries it prints them as JSON instead.
"""
import glob
import json
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, "deploy", "grafana", "dashboards")
COUNTER = re.compile(r"\b\w+_(?:total|bucket|count|sum)\b|\bnode_vmstat_\w+")
RATE = re.compile(r"\b(?:rate|irate|increase)\(")
SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\{([^}]*)\}")


def dashboards():
    """(file name, dashboard) pairs."""
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.json"))):
        with open(path, encoding="utf-8") as file:
            yield os.path.basename(path), json.load(file)


def queries():
    """(dashboard, panel, reference, unit, expression) of every target."""
    for name, dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield name, panel["title"], target["refId"], panel["fieldConfig"]["defaults"]["unit"], target["expr"]


def problems_of_variables(dashboard):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    source = variables.get("datasource", {})
    if (source.get("type"), source.get("query"), source.get("label")) != ("datasource", "prometheus", "Data source"):
        yield "template-datasource-rule: no variable 'datasource' for Prometheus, labelled 'Data source'"
    for name in ("job", "instance"):
        variable = variables.get(name)
        if variable is None:
            yield f"template-{name}-rule: no variable '{name}'"
            continue
        wanted = {"type": "query", "label": name.capitalize(), "multi": True, "allValue": ".+"}
        for key, value in wanted.items():
            if variable.get(key) != value:
                yield f"template-{name}-rule: {key} is {variable.get(key)!r}, not {value!r}"
        if variable.get("datasource", {}).get("uid") != "${datasource}":
            yield f"template-{name}-rule: datasource is not ${{datasource}}"
        if variable.get("refresh") != 2:
            yield f"template-on-time-change-reload-rule: '{name}' is not filled anew on a change of time"
        if not re.fullmatch(r"label_values\([a-z_]+(\{[^}]+\})?, \w+\)", variable["query"]["query"]):
            yield f"template-label-promql-rule: {variable['query']['query']}"


def problems_of_target(expression):
    for metric, matchers in SELECTOR.findall(expression):
        for label in ("job", "instance"):
            if f'{label}=~"${label}"' not in matchers:
                yield f"target-{label}-rule: {metric} is not selected by {label}=~\"${label}\""
    for window in re.findall(r"\[([^\]]+)\]", expression):
        if window != "$__rate_interval":
            yield f"target-rate-interval-rule: [{window}]"
    bare = re.sub(r"\{[^}]*\}", "", expression)
    for counter in COUNTER.finditer(bare):
        if not RATE.search(bare[max(0, counter.start() - 9):counter.start()]):
            yield f"target-counter-agg-rule: {counter.group()} without a rate"
    if not SELECTOR.search(expression):
        yield "target-promql-rule: no selector"


def problems(dashboard):
    yield from problems_of_variables(dashboard)
    if dashboard.get("editable") is not False:
        yield "uneditable-dashboard-rule: it can be edited"
    titles = [panel["title"] for panel in dashboard["panels"]]
    if len(set(titles)) != len(titles):
        yield "two panels with one title"
    for panel in dashboard["panels"]:
        where = f"panel '{panel.get('title')}': "
        if not panel.get("title") or not panel.get("description"):
            yield where + "panel-title-description-rule: title or description is missing"
        if panel.get("datasource", {}).get("uid") != "${datasource}":
            yield where + "panel-datasource-rule: datasource is not ${datasource}"
        if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
            yield where + "panel-units-rule: no unit"
        if not panel.get("targets"):
            yield where + "panel-no-targets-rule: no targets"
        for target in panel.get("targets", []):
            yield from (where + problem for problem in problems_of_target(target["expr"]))


def main():
    if sys.argv[1:] == ["--queries"]:
        print(json.dumps([{"where": f"{name} / {panel} {ref}", "query": query} for name, panel, ref, _, query in queries()]))
        return 0
    found = [f"{name}: {problem}" for name, dashboard in dashboards() for problem in problems(dashboard)]
    if sorted(name for name, _ in dashboards()) != ["fleet.json", "machine.json", "server.json"]:
        found.append("there must be fleet.json, machine.json and server.json")
    print("\n".join(found) or "the dashboards hold all rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
