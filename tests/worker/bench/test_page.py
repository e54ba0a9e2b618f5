"""The benchmark page shows the figures of the files that lie beside it, and nothing older."""

import json

import pytest

from trireme_worker.bench.page import main, render

DECODE = {
    "model": "2b4t", "threads": 2, "batch": 8, "context": 256, "tokens_per_s": 41.26,
    "bytes_per_token": 6.04e8, "of_read": 0.912, "of_vnni_peak": 0.5,
}  # fmt: skip
TARGET = {"what": "speed", "goal": 0.9, "at_least": True, "unit": "", "measured": 0.95, "met": True, "why_not": None}
PAGE = "Before.\n<!-- {} -->\nold | table\n<!-- end -->\nAfter.\n"


def page(tmp_path, kind, result):
    (tmp_path / "a.json").write_text(json.dumps(result))
    return render(PAGE.format(f"{kind}: a.json"), tmp_path)


def test_a_block_is_replaced_and_the_rest_is_kept(tmp_path):
    text = page(tmp_path, "decode", DECODE)
    assert text.startswith("Before.\n<!-- decode: a.json -->\n| shape |")
    assert "| 2b4t | 2 | 8 | 256 | 41.3 | 604 MB | 0.91 | 0.50 |\n<!-- end -->\nAfter." in text
    assert "old" not in text
    assert render(text, tmp_path) == text


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({}, "| speed | ≥ 0.9 | 0.95 | yes |"),
        ({"at_least": False, "unit": "ms", "met": False}, "| speed | ≤ 0.9 ms | 0.95 ms | no |"),
        ({"goal": None, "met": None}, "| speed |  | 0.95 |  |"),
        ({"measured": None, "why_not": "one CPU"}, "| speed | ≥ 0.9 | one CPU |  |"),
    ],
)
def test_targets_say_whether_they_are_met(tmp_path, change, row):
    assert row in page(tmp_path, "targets", {"targets": [TARGET | change]})


def test_peers_stand_side_by_side(tmp_path):
    line = {
        "model": "8b", "what": "decode", "threads": 1, "batch": 4, "context": 256,
        "tokens_per_s": {"trireme": 12.0, "llama.cpp TQ2_0": 6.0}, "over": {"llama.cpp TQ2_0": 2.0},
    }  # fmt: skip
    text = page(tmp_path, "peers", {"results": [line]})
    assert "| 8b | decode | 1 | 4 | 256 | 12.0 | 6.0 | 2.00 |" in text


def test_the_service_stands_beside_the_bare_loop(tmp_path):
    line = {"pack": "p", "stages": 4, "threads": 1, "tokens_per_s": 9.0, "bare_tokens_per_s": 10.0, "of_bare": 0.9}
    assert "| p | 4 | 1 | 9.0 | 10.0 | 0.90 |" in page(tmp_path, "overhead", {"results": [line]})


def test_a_plan_stands_beside_its_deployment(tmp_path):
    result = {
        "model": "m", "stages": 2, "prompt": 32, "tokens_per_s": 2.04, "read_gb_s": 31.9, "limit_tokens_per_s": 2.24,
        "of_limit": 0.91, "planned_tokens_per_s": 2.01, "tokens_per_s_error": -0.0147, "ttft_s": 6.1, "read_drift": 1.1,
        "planned_ttft_s": 6.0, "ttft_error": 0.02, "bytes_per_token": 14.2e9, "of_fp16": 0.102,
        "rss_bytes": [7.7e9, 8.4e9], "start_s": 28.7,
    }  # fmt: skip
    text = page(tmp_path, "plan", result)
    assert "| planned, error | 2.01, -1.5% |" in text
    assert "| memory of the 2 stages, weights mapped | 7.7 + 8.4 GB |" in text


@pytest.mark.parametrize("prefill", [True, False])
def test_a_pipeline_stands_beside_the_ideal_and_the_simulation(tmp_path, prefill):
    result = {
        "stages": 4, "streams": 4, "step_ms": 40.0, "tokens_per_s": {"measured": 23.8, "error": 0.015},
        "ideal_tokens_per_s": 25.0, "of_ideal": 0.954, "load": {"ITL": {"error": -0.03}},
        "prefill_s": {"error": -0.04} if prefill else None, "of_one_stage": 0.283 if prefill else None,
    }  # fmt: skip
    row = f"| 4 | 4 | 40 ms | 23.8 | 25.0 | 0.954 | {'0.283 | 4.0%' if prefill else ' | 3.0%'} |"
    assert row in page(tmp_path, "pipeline", result)


def test_a_load(tmp_path):
    run = {
        "streams": 1000, "completed": 2000, "failed": {"OVERLOADED": 2, "INTERNAL": 1}, "tokens_per_s": 2502.1,
        "ttft_s": {"p50": 2.96, "p99": 12.6}, "itl_s": {"p50": 0.3, "p99": 0.587},
    }  # fmt: skip
    row = "| 1000 | 2000 | 3 | 2502 | 2.96 s | 12.60 s | 0.30 s | 0.59 s |"
    assert row in page(tmp_path, "load", {"runs": [run]})


def test_the_schedulers_cost(tmp_path):
    row = {"sequences": 8, "schedule_us": 12.34, "frame_us": 7.0, "total_us": 19.34}
    assert "| 8 | 12.3 | 7.0 | 19.3 |" in page(tmp_path, "scheduler", {"rows": [row]})


@pytest.mark.parametrize(("kind", "named"), [("nonsense: a.json", "nonsense"), ("decode: b.json", "b.json")])
def test_what_cannot_be_shown_is_named(tmp_path, kind, named):
    with pytest.raises(ValueError, match=named):
        render(PAGE.format(kind), tmp_path)


def test_the_command_rewrites_the_page(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(DECODE))
    (tmp_path / "page.md").write_text(PAGE.format("decode: a.json"))
    main(tmp_path / "page.md")
    assert "| 41.3 |" in (tmp_path / "page.md").read_text()


def test_killed_workers_and_coordinators_share_a_table(tmp_path):
    times = {"recovery_s": {"p50": 1.0, "p95": 1.5}, "detection_s": {"p50": 0.01, "p95": 0.024}}
    counts = {"kills": 2, "answers": 8, "exact": 8, "failed": 0}
    worker = counts | times | {"lost_tokens": 0, "duplicated_tokens": 0, "other_tokens": 0}
    row = "| worker | 2 | 8 of 8 exact, 0 failed; 0 lost, 0 twice, 0 other | 1.00 / 1.50 s | 0.01 / 0.02 s |"
    assert row in page(tmp_path, "lost", worker)
    coordinator = counts | {"wrong": 1, "gap_p50_s": 2.0, "gap_p95_s": 2.25}
    assert "| leading coordinator | 2 | 7 of 8 exact, 0 failed | 2.00 / 2.25 s |  |" in page(
        tmp_path, "lost", coordinator
    )


def test_disturbed_tokens_stand_beside_calm_ones(tmp_path):
    calm = {"tokens": 10, "p50_s": 0.002, "p99_s": 0.004, "longest_s": 0.01}
    found = {"kills": 2, "freezes": 3, "calm": calm, "killed": calm | {"p99_s": 0.005}, "frozen": calm}
    text = page(tmp_path, "redis", found)
    assert "| killed 2x | 10 | 2.0 ms | 5.0 ms | 10.0 ms | +25.0% |" in text
    assert "| frozen 3x | 10 | 2.0 ms | 4.0 ms | 10.0 ms | +0.0% |" in text


def test_restored_stands_beside_prefilled(tmp_path):
    found = {
        "model": "m", "tokens": 2000, "kv_dtype": "int8", "bytes": 79.2e6, "ttft_prefill_s": 13.0,
        "ttft_restore_s": 0.25, "speedup": 52.0,
    }  # fmt: skip
    assert "| m | 2000 | int8 | 79 MB | 13.00 s | 0.25 s | 52.0 |" in page(tmp_path, "resume", found)
