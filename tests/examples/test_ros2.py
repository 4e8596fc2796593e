"""The ROS 2 example as far as it goes without ROS: what it makes of a result, and its sentence where ROS is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from tests.support import messages

NODE = Path(__file__).parents[2] / "examples/ros2/edged_node.py"


@pytest.fixture(scope="module")
def node() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edged_node", NODE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_box_has_its_centre_and_size_and_track(node: ModuleType) -> None:
    result = messages.result(objects=2)
    first, second = result.detections  # type: ignore[misc]
    result = msgspec.structs.replace(result, detections=[msgspec.structs.replace(first, track=7), second])
    x0, y0, x1, y1 = first.box
    found = node.boxes(result)
    assert found[0] == (first.label, first.score, ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - x0, y1 - y0), "7")
    assert found[1].track == ""
    assert node.boxes(msgspec.structs.replace(result, detections=msgspec.UNSET)) == []


def test_a_stamp_is_whole_seconds_and_nanoseconds(node: ModuleType) -> None:
    assert node.stamp(1.7e9 + 0.25) == (1_700_000_000, 250_000_000)
    assert node.stamp(1.9999999999) == (2, 0)


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed")
def test_without_ros_it_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, NODE], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr == "rclpy is missing: source the setup of ROS 2, and install its vision_msgs\n"
