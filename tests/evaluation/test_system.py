"""The machine's load in the record of a run."""

from __future__ import annotations

import time
from pathlib import Path

from raydist.evaluation.mirror import EVENTS, Mirror, read_lines
from raydist.evaluation.system import SystemMetrics, parse_gpus


def test_the_load_is_sampled_until_the_run_ends_and_not_at_all_with_zero(tmp_path: Path) -> None:
    with SystemMetrics(Mirror(tmp_path), 0.05):
        time.sleep(0.4)
    events = [record for record, _ in read_lines(tmp_path / EVENTS)]
    assert [event["sample"] for event in events] == list(range(len(events))) and len(events) > 1
    values = events[-1]["values"]
    assert 0 <= values["cpu_utilization_percentage"] <= 100
    assert 10 < values["process_memory_megabytes"] <= values["system_memory_usage_megabytes"]
    assert values["disk_write_megabytes_per_second"] >= 0
    time.sleep(0.15)
    assert len(list(read_lines(tmp_path / EVENTS))) == len(events)
    with SystemMetrics(Mirror(tmp_path / "none"), 0):
        time.sleep(0.1)
    assert not (tmp_path / "none" / EVENTS).exists()


def test_gpus_are_read_from_nvidia_smi_and_what_they_do_not_tell_is_left_out() -> None:
    values = parse_gpus("0, 87, 1000, 4000\n1, [N/A], 500, 2000\n2, 5, [N/A], [N/A]\n")
    assert values == {
        "gpu_0_utilization_percentage": 87.0,
        "gpu_0_memory_usage_megabytes": 1048.576,
        "gpu_0_memory_usage_percentage": 25.0,
        "gpu_1_memory_usage_megabytes": 524.288,
        "gpu_1_memory_usage_percentage": 25.0,
        "gpu_2_utilization_percentage": 5.0,
    }
