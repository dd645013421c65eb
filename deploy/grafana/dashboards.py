#!/usr/bin/env python3
"""Writes the Grafana dashboards beside it from the one description in this file.

  deploy/grafana/dashboards.py           writes tidepool-*.json
  deploy/grafana/dashboards.py --check   says which are not up to date, exit code 1

tests/deploy/metrics_test.py runs every query against a Prometheus that scrapes the running system.
"""

import json
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))


def rate(counter, by="", where=""):
    grouping = f" by ({by})" if by else ""
    selector = ", ".join(filter(None, [where, 'instance=~"$instance"']))
    return f"sum{grouping} (rate({counter}{{{selector}}}[$__rate_interval]))"


def gauge(name):
    return f'{name}{{instance=~"$instance"}}'


def quantile(q, histogram, by="", where=""):
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', ', '.join(filter(None, ['le', by])), where)})"


def mean(histogram, by=""):
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"


def quantiles(histogram, **selection):
    return [(quantile(q, histogram, **selection), name) for q, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))]


# Panels: title, unit of Grafana, [(query, legend)], what to read from it.
WORKERS = [
    ("Requests", "short", [(gauge("tidepool_requests_running"), "running {{instance}}"),
                           (gauge("tidepool_requests_waiting"), "waiting {{instance}}")],
     "Waiting for long: more workers, or more --device-kv-bytes."),
    ("Slot pages in use", "percentunit", [(gauge("tidepool_kv_cache_usage_ratio"), "{{instance}}")],
     "Idle sessions included: these leave when others need the room."),
    ("Tokens", "short", [(rate("tidepool_prompt_tokens_total"), "prompt"),
                         (rate("tidepool_generation_tokens_total"), "generated")], "Per second, of all workers shown."),
    ("Time to first token", "s", quantiles("tidepool_time_to_first_token_seconds"), "From a request's arrival."),
    ("Between tokens", "s", quantiles("tidepool_inter_token_latency_seconds"), "What a reader feels."),
    ("Where the time goes", "s", [(mean("tidepool_request_queue_time_seconds"), "queue"),
                                  (mean("tidepool_request_prefill_time_seconds"), "prefill"),
                                  (mean("tidepool_request_decode_time_seconds"), "decode")], "Mean per request."),
    ("Whole requests", "s", quantiles("tidepool_e2e_request_latency_seconds"), "From arrival to end."),
    ("Ends", "short", [(rate("tidepool_requests_finished_total", "reason"), "{{reason}}"),
                       (rate("tidepool_requests_rejected_total"), "rejected")], "Per second."),
    ("Traces", "short", [(rate("tidepool_traces_exported_total"), "exported"),
                         (rate("tidepool_traces_dropped_total"), "dropped")], "Of requests, per second (--otlp-endpoint)."),
    ("Prompt tokens not computed again", "percentunit",
     [(f'{rate("tidepool_prefix_cache_hits_total", "source")} / ignoring(source) group_left '
       f'{rate("tidepool_prefix_cache_queries_total")}', "{{source}}"),
      (f'{rate("tidepool_prefix_refused_tokens_total")} / {rate("tidepool_prefix_cache_queries_total")}', "refused")],
     "resident: the session was still on the device; session, prefix: from the cache service; refused: stored, but "
     "quicker to compute than to load."),
    ("Steps", "short", [(rate("tidepool_steps_total", "instance"), "{{instance}}")], "Per second."),
    ("Offload and fetch", "Bps", [(rate("tidepool_offload_bytes_total"), "offloaded"),
                                  (rate("tidepool_fetch_bytes_total"), "fetched"),
                                  (rate("tidepool_recall_received_bytes_total"), "recalled")],
     "Between workers and cache services."),
    ("Trouble with the cache service", "short", [(rate("tidepool_offload_failures_total"), "blocks not stored"),
                                                 (rate("tidepool_offload_blocks_total"), "blocks stored"),
                                                 (rate("tidepool_fetch_blocks_total"), "blocks fetched"),
                                                 (rate("tidepool_offload_resent_blocks_total"), "sent again: arrived damaged"),
                                                 (rate("tidepool_fetch_refetched_blocks_total"), "fetched again: came damaged"),
                                                 (rate("tidepool_cache_reconnects_total"), "reconnects")], "Per second."),
    ("Memory", "bytes", [(gauge("process_resident_memory_bytes"), "resident {{job}} {{instance}}"),
                         (gauge("tidepool_kv_cache_used_bytes"), "slot pages {{instance}}"),
                         (gauge("tidepool_kv_cache_limit_bytes"), "all slot pages {{instance}}")], ""),
    ("Processors", "short", [(rate("process_cpu_seconds_total", "job, instance"), "{{job}} {{instance}}")],
     "Of one each."),
]

QUALITY = [
    ("Attention dropped", "percentunit", [(mean("tidepool_attention_dropped_mass_ratio", "policy"), "{{policy}}")],
     "Mean share of a decoding step's attention on evicted rows that recall had not brought back. The price of the "
     "compression: above a tenth, give the policy more budget or recall more rows."),
    ("Attention on evicted rows", "percentunit", [(mean("tidepool_attention_evicted_mass_ratio", "policy"), "{{policy}}")],
     "What would be dropped without recall."),
    ("Attention dropped, by layers", "percentunit",
     [(mean("tidepool_attention_dropped_mass_ratio", "policy, layers"), "{{policy}} {{layers}}")],
     "Thirds of the model."),
    ("Attention dropped, worst heads", "percentunit",
     [(quantile(0.99, "tidepool_attention_dropped_mass_ratio", "policy"), "{{policy}} 99 %"),
      (quantile(0.9, "tidepool_attention_dropped_mass_ratio", "policy"), "{{policy}} 90 %")],
     "Of all kv heads and steps."),
    ("Evicted, then needed", "short",
     [(rate("tidepool_kv_needed_rows_total", "policy, outcome"), "{{policy}} {{outcome}}")],
     "Rows per second. late: the step went without; lost: the answer is degraded."),
    ("Needed of evicted rows", "percentunit",
     [(f'{rate("tidepool_kv_needed_rows_total", "policy")} / {rate("tidepool_kv_evicted_rows_total", "policy")}',
       "{{policy}}")],
     "How often the policy threw away what was wanted; above 1 when rows are needed again and again."),
    ("Rows that policies took away", "short", [(rate("tidepool_kv_evicted_rows_total", "policy"), "{{policy}} evicted"),
                                               (rate("tidepool_kv_merged_rows_total", "policy"), "{{policy}} merged")],
     "Per second, when their requests end."),
    ("Recall latency", "s",
     [(quantile(q, "tidepool_recall_latency_seconds", "mode"), "{{mode}} " + name)
      for q, name in ((0.5, "median"), (0.99, "99 %"))],
     "sync: steps wait for it. async: below recall.budget_ms, or rows are late."),
    ("Requests for rows", "short", [(rate("tidepool_recall_requests_total", "mode, outcome"), "{{mode}} {{outcome}}")],
     "Per second."),
    ("Answers with a flaw", "short", [(rate("tidepool_degraded_requests_total"), "rows were lost"),
                                      (rate("tidepool_budget_exceeded_requests_total"), "over budget for a while")],
     "Per second."),
]

CACHE = [
    ("Tiers", "bytes", [(gauge("tidepool_cache_tier_bytes"), "{{tier}} {{instance}}"),
                        (gauge("tidepool_cache_tier_limit_bytes"), "limit of {{tier}} {{instance}}")], ""),
    ("Block values", "short", [(gauge("tidepool_cache_tier_objects"), "{{tier}} {{instance}}")],
     "One for each block and layer."),
    ("Reads by tier", "short", [(rate("tidepool_cache_hits_total", "tier"), "{{tier}}")], "Per second."),
    ("Misses by reason", "short", [(rate("tidepool_cache_misses_total", "reason"), "{{reason}}")],
     "Per second. absent: never stored, or dropped; late: the deadline came first; unavailable: the remote tier."),
    ("Hit ratio", "percentunit",
     [(f'{rate("tidepool_cache_hits_total")} / ({rate("tidepool_cache_hits_total")} + {rate("tidepool_cache_misses_total")})',
       "all tiers"),
      (f'''{rate("tidepool_cache_hits_total", where='tier="memory"')} / {rate("tidepool_cache_hits_total")}''',
       "of these from memory")], ""),
    ("Time to gather rows", "s", quantiles("tidepool_cache_recall_duration_seconds"), "Inside the service."),
    ("Rows recalled", "short", [(rate("tidepool_cache_recalled_rows_total"), "found"),
                                (rate("tidepool_cache_missing_rows_total"), "missing")], "Per second."),
    ("Recalled", "Bps", [(rate("tidepool_cache_recalled_bytes_total", "instance"), "{{instance}}")], ""),
    ("Stored", "short", [(rate("tidepool_cache_puts_total", "tier"), "new in {{tier}}"),
                         (rate("tidepool_cache_repeated_puts_total", "tier"), "there already, {{tier}}")],
     "Values per second."),
    ("Moved and gone", "short", [(rate("tidepool_cache_demotions_total"), "to disk"),
                                 (rate("tidepool_cache_promotions_total"), "back to memory"),
                                 (rate("tidepool_cache_evictions_total", "tier"), "evicted from {{tier}}"),
                                 (rate("tidepool_cache_quota_evictions_total"), "past a tenant's quota"),
                                 (rate("tidepool_cache_disk_expired_total"), "unused, expired from disk"),
                                 (rate("tidepool_cache_disk_renewed_total"), "used, stored anew instead"),
                                 (rate("tidepool_cache_queue_drops_total"), "dropped by the queue")], "Per second."),
    ("Trouble", "short", [(rate("tidepool_cache_corrupt_total", "tier"), "corrupt in {{tier}}"),
                          (rate("tidepool_cache_write_failures_total", "tier"), "not written to {{tier}}"),
                          (gauge("tidepool_cache_disk_writable"), "disk writable {{instance}}")], ""),
    ("Remote tier", "short", [(gauge("tidepool_cache_remote_breaker_state"), "breaker of {{instance}}"),
                              (rate("tidepool_cache_remote_breaker_opened_total"), "breaker opens per second"),
                              (rate("tidepool_cache_remote_dropped_total"), "not copied in time, per second")],
     "Breaker: 0 closed, or no remote tier; 1 open; 2 being tried again."),
    ("What reads of tiers take", "s", [(gauge("tidepool_cache_tier_read_latency_seconds"), "{{tier}} {{instance}}")],
     "Each, of next to nothing; the bytes come on top."),
    ("What reads of tiers give", "Bps", [(gauge("tidepool_cache_tier_read_bytes_per_second"), "{{tier}} {{instance}}")],
     "0: not seen yet."),
    ("Tiers left out", "short", [(gauge("tidepool_cache_tier_left_out"), "{{tier}} {{instance}}"),
                                 (rate("tidepool_cache_left_out_lookups_total", "tier"), "lookups, {{tier}}, per second"),
                                 (rate("tidepool_cache_tier_reads_total", "tier"), "reads, {{tier}}, per second")],
     "1 while prefixes are computed because that is faster than reading them; 2 being tried again."),
    ("On the way", "bytes", [(gauge("tidepool_cache_staging_bytes"), "arriving {{instance}}"),
                             (gauge("tidepool_cache_queue_bytes"), "waiting for the disk {{instance}}"),
                             (gauge("tidepool_cache_remote_backlog_bytes"), "waiting for the remote tier {{instance}}"),
                             (gauge("tidepool_cache_pinned_bytes"), "pinned {{instance}}")],
     "Arriving and waiting return to 0."),
    ("Disk used", "bytes", [(gauge("tidepool_cache_disk_used_bytes"), "{{instance}}"),
                            (gauge("tidepool_cache_session_bytes"), "manifests {{instance}}"),
                            (gauge("tidepool_cache_session_limit_bytes"), "limit of manifests {{instance}}")],
     "Files of the database."),
    ("Sessions", "short", [(gauge("tidepool_cache_sessions"), "stored {{instance}}"),
                           (rate("tidepool_cache_session_calls_total", "call"), "{{call}} per second"),
                           (rate("tidepool_cache_session_errors_total", "reason"), "{{reason}} per second")], ""),
    ("Streams and calls", "short", [(gauge("tidepool_cache_streams"), "streams {{instance}}"),
                                    (gauge("tidepool_cache_waiting_calls"), "waiting calls {{instance}}")],
     "Two streams for each worker."),
]

# uid, title, the metric by whose instances the dashboard's own are known, panels
DASHBOARDS = [
    ("tidepool-workers", "Tidepool: workers", "tidepool_worker_info", WORKERS),
    ("tidepool-quality", "Tidepool: quality of compression", "tidepool_worker_info", QUALITY),
    ("tidepool-cache", "Tidepool: cache service", "tidepool_cache_info", CACHE),
]


def panel(index, title, unit, queries, text):
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [{"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "range": True}
                    for i, (query, legend) in enumerate(queries)],
    }


def dashboard(uid, title, instances, panels):
    return {
        "uid": uid,
        "title": title,
        "tags": ["tidepool"],
        "schemaVersion": 38,
        "editable": False,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {"name": "instance", "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
             "query": f"label_values({instances}, instance)", "includeAll": True, "allValue": ".*", "multi": True,
             "refresh": 2, "current": {"text": "All", "value": "$__all"}},
        ]},
        "panels": [panel(i, *of) for i, of in enumerate(panels)],
    }


def main():
    stale = []
    for uid, *of in DASHBOARDS:
        path = os.path.join(FOLDER, uid + ".json")
        text = json.dumps(dashboard(uid, *of), indent=1) + "\n"
        before = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
        if text == before:
            continue
        if "--check" in sys.argv[1:]:
            stale.append(os.path.basename(path))
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    for name in stale:
        print(f"{name} is not up to date: run deploy/grafana/dashboards.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
