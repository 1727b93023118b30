// Parses queries ([{where, query}] as JSON on stdin) with Prometheus's grammar; the argument is where the npm package lies.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { parser } = createRequire(`${process.argv[2]}/`)("@prometheus-io/lezer-promql");
const queries = JSON.parse(readFileSync(0, "utf8"));
let broken = 0;
for (const { where, query } of queries) {
  // Grafana puts durations in the place of its variables before Prometheus sees a query.
  const text = query.replaceAll("$__rate_interval", "1m");
  parser.parse(text).iterate({
    enter(node) {
      if (!node.type.isError) return;
      broken += 1;
      console.error(`${where}: syntax error at ${node.from}: ${text}`);
    },
  });
}
console.log(`${queries.length} queries, ${broken} syntax errors`);
process.exit(broken === 0 && queries.length > 0 ? 0 : 1);
