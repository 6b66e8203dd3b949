"""Answers: how long one takes while posts come in as fast as they go, and whether other hosts make it longer."""

from functools import partial
from urllib.parse import quote

from figures import Row, in_turns, ratios
from load import LINES, SAMPLES, answer_ms, fill, ingest
from servers import receiver, victoria_metrics

HOSTS = 1000
HOST = "host-7.example.org"
WINDOW_MINUTES = 60


def range_query(selector):
    """The last hour by minute of victoria-metrics, which says of the newest point what it is by now."""
    return f"/api/v1/query_range?query={quote(selector)}&start=-1h&step=60"


def answer_under_ingest_ms(server, posts, path):
    _, port = server
    with ingest(port, posts):
        return answer_ms(port, path)


def get_rows():
    """lizm beside victoria-metrics, each under its own full ingest, with an hour of its hosts by minute."""
    with receiver() as lizm, victoria_metrics() as peer:
        for _, port in (lizm, peer):
            fill(port, HOSTS, WINDOW_MINUTES)
        of_one = in_turns(
            partial(answer_under_ingest_ms, lizm, SAMPLES, f"/api/perf/{HOST}"),
            partial(answer_under_ingest_ms, peer, LINES, range_query(f'{{host="{HOST}"}}')),
        )
        with receiver("--http-server", "builtin") as builtin:
            fill(builtin[1], HOSTS, WINDOW_MINUTES)
            of_builtin, beside = in_turns(
                partial(answer_under_ingest_ms, builtin, SAMPLES, f"/api/perf/{HOST}"),
                partial(answer_under_ingest_ms, peer, LINES, range_query(f'{{host="{HOST}"}}')),
            )
        of_all = in_turns(
            partial(answer_under_ingest_ms, lizm, SAMPLES, "/api/hosts?series=cpu,mem"),
            partial(answer_under_ingest_ms, peer, LINES, range_query('{__name__=~"perf_cpu|perf_mem"}')),
        )
    (ours_p50, ours_p99), (peer_p50, peer_p99) = (zip(*rounds) for rounds in of_one)
    (all_p50, all_p99), (peer_all_p50, peer_all_p99) = (zip(*rounds) for rounds in of_all)
    return [
        Row("`GET /api/perf/HOST` of two labels, while 32 connections post, p50, lizm", ours_p50, "ms"),
        Row("the same, p99", ours_p99, "ms", most=5),
        Row("`query_range` of the same host and hour, while 32 connections post, p50, victoria-metrics", peer_p50, "ms"),
        Row("the same, p99", peer_p99, "ms"),
        Row("ratio of p99, lizm to victoria-metrics", ratios(ours_p99, peer_p99), "×", most=0.5),
        Row("ratio of p50, lizm to victoria-metrics", ratios(ours_p50, peer_p50), "×", most=1.0),
        Row("the same, with `--http-server builtin`", ratios(*(list(zip(*r))[0] for r in (of_builtin, beside))), "×", most=1.0),
        Row(f"`GET /api/hosts?series=cpu,mem` of {HOSTS:,} hosts, while 32 connections post, p50, lizm", all_p50, "ms"),
        Row("the same, p99", all_p99, "ms"),
        Row("`query_range` of the same hosts and hour, while 32 connections post, p50, victoria-metrics", peer_all_p50, "ms"),
        Row("the same, p99", peer_all_p99, "ms"),
    ]


def lookup_rows():
    """The same host among few and among many, while nothing else is asked."""
    with receiver() as small, receiver() as large:
        fill(large[1], 100_000, minutes=1)
        for _, port in (small, large):
            fill(port, HOSTS, WINDOW_MINUTES)
        rounds = in_turns(*(partial(answer_ms, port, f"/api/perf/{HOST}") for _, port in (small, large)))
    few, many = ([p50 for p50, _ in figures] for figures in rounds)
    return [
        Row("`GET /api/perf/HOST` of two labels, among 1,000 hosts, p50", few, "ms"),
        Row("the same among 100,000 hosts", many, "ms"),
        Row("ratio, 100,000 hosts to 1,000", ratios(many, few), "×", most=1.25),
    ]
