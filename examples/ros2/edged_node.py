"""A ROS 2 node that publishes the results of edged: detections of each camera, and its picture while somebody looks.

    source /opt/ros/humble/setup.bash && python3 edged_node.py        (ros-humble-vision-msgs; edged in the same Python)

Topics: /edged/CAMERA/detections (vision_msgs/Detection2DArray), /edged/CAMERA/image (sensor_msgs/Image, bgr8). The
stamp is the time of capture, frame_id the camera. Written for Humble and later, whose vision_msgs is 4 or newer.
"""

from __future__ import annotations

import array
from typing import Any, NamedTuple

from edged.client import Client, Result

NS_PER_S = 1_000_000_000


class Box(NamedTuple):
    """A detection as vision_msgs has it, in pixels; `track` is empty where the camera does not follow objects."""

    label: str
    score: float
    centre: tuple[float, float]
    size: tuple[float, float]
    track: str


def boxes(result: Result) -> list[Box]:
    """The objects of a result; none for a model that gives classes."""
    found = []
    for one in result.detections or ():
        x0, y0, x1, y1 = one.box
        track = str(one.track) if isinstance(one.track, int) else ""
        found.append(Box(one.label, one.score, ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - x0, y1 - y0), track))
    return found


def stamp(t_s: float) -> tuple[int, int]:
    """Unix seconds as seconds and nanoseconds."""
    return divmod(int(t_s) * NS_PER_S + round(t_s % 1 * NS_PER_S), NS_PER_S)


def main() -> None:
    try:
        import rclpy
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header
        from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
    except ImportError as error:
        raise SystemExit(f"{error.name} is missing: source the setup of ROS 2, and install its vision_msgs") from error

    rclpy.init()
    node = rclpy.create_node("edged")
    publishers: dict[str, tuple[Any, Any]] = {}

    def detection(box: Box, header: Any) -> Any:
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = box.label, box.score
        found = Detection2D(header=header, results=[hypothesis], id=box.track)
        found.bbox.center.position.x, found.bbox.center.position.y = box.centre
        found.bbox.size_x, found.bbox.size_y = box.size
        return found

    with Client(topics=["result/"]) as client:
        while rclpy.ok():
            rclpy.spin_once(node, timeout_sec=0)
            message = client.receive(timeout_s=0.5)
            if not isinstance(message, Result):
                continue
            topic = f"/edged/{message.camera.replace('-', '_')}"
            if topic not in publishers:
                detections = node.create_publisher(Detection2DArray, f"{topic}/detections", 10)
                publishers[topic] = detections, node.create_publisher(Image, f"{topic}/image", 1)
            detections, images = publishers[topic]
            header = Header(frame_id=message.camera)
            header.stamp.sec, header.stamp.nanosec = stamp(message.t_capture)
            detections.publish(
                Detection2DArray(header=header, detections=[detection(box, header) for box in boxes(message)])
            )
            if images.get_subscription_count() and (pixels := client.frame(message)) is not None:
                height, width, _ = pixels.shape
                image = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
                image.data = array.array("B", pixels.tobytes())
                images.publish(image)


if __name__ == "__main__":
    main()
