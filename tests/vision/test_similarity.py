"""What two results have in common: masks, key points, oriented boxes, class maps and vectors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edged.vision.agreement import SAME_OBJECT_IOU, of_detections, of_embeddings
from edged.vision.oriented import corners, overlap
from edged.vision.results import Detections, Embedding, Mask, plain, taken
from edged.vision.similarity import box_iou, mask_iou, similarity

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [40, 40, 60, 50]], np.float32)
THREE = Detections(BOXES, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 0, 1]))


def test_boxes_by_intersection_over_union() -> None:
    assert box_iou(BOXES, BOXES).round(4).tolist() == [[1, 0.3333, 0], [0.3333, 1, 0], [0, 0, 1]]


def test_masks_by_the_cells_they_share_wherever_their_grids_begin() -> None:
    whole = Mask(np.ones((4, 4), bool), 8.0, 8.0, 2.0, 2.0)
    right_half = Mask(np.ones((4, 2), bool), 12.0, 8.0, 2.0, 2.0)
    elsewhere = Mask(np.ones((2, 2), bool), 40.0, 8.0, 2.0, 2.0)
    empty = Mask(np.zeros((2, 2), bool), 8.0, 8.0, 2.0, 2.0)
    assert mask_iou((whole, empty), (right_half, elsewhere, empty)).tolist() == [[0.5, 0, 0], [0, 0, 1]]


def test_key_points_fall_off_with_their_distance_in_units_of_the_object() -> None:
    points = np.tile(np.array([[20, 20, 1]], np.float32), (3, 5, 1))
    first = replace(THREE, keypoints=points)
    moved = replace(THREE, keypoints=points + np.array([1, 0, 0], np.float32))
    got = similarity(first, moved)
    assert similarity(first, first).diagonal().tolist() == [1, 1, 1]
    assert got[0, 0] == pytest.approx(math.exp(-1 / (2 * 100 * 0.1**2)))
    assert got[2, 2] == pytest.approx(math.exp(-1 / (2 * 200 * 0.1**2)))


def test_oriented_boxes_know_their_angle() -> None:
    box = np.array([[30, 30, 40, 10]], np.float32)
    turned = [np.concatenate((box, [[angle]]), axis=1) for angle in (0.0, 0.2, math.pi / 2)]
    same, near, across = (float(overlap(turned[0], other)[0, 0]) for other in turned)
    assert same == pytest.approx(1, abs=1e-5) and same > near > across
    long = replace(THREE, corners=np.repeat(corners(box, np.zeros(1, np.float32)), 3, axis=0))
    high = replace(THREE, corners=np.repeat(corners(box, np.full(1, math.pi / 2, np.float32)), 3, axis=0))
    assert similarity(long, long)[0, 0] > 0.99 and similarity(long, high)[0, 0] < SAME_OBJECT_IOU


def test_an_object_with_another_mask_is_another_object() -> None:
    masks = tuple(Mask(np.ones((4, 4), bool), x, 0.0, 1.0, 1.0) for x in (0.0, 10.0, 20.0))
    first, second = replace(THREE, masks=masks), replace(THREE, masks=(masks[1], masks[0], masks[2]))
    assert of_detections(first, first, 0.3) == 1.0
    assert of_detections(first, replace(second, class_ids=np.array([0, 1, 1])), 0.3) == pytest.approx(0.4, abs=0.3)
    assert not plain(first) and plain(THREE)
    assert taken(first, [2, 0]).masks == (masks[2], masks[0])


def test_vectors_by_the_cosine_between_them() -> None:
    east, north = (Embedding(np.array(v, np.float32)) for v in ([2, 0], [0, 5]))
    slanted, nothing = (Embedding(np.array(v, np.float32)) for v in ([1, 1], [0, 0]))
    assert of_embeddings(east, east) == 1 and of_embeddings(east, north) == 0 == of_embeddings(east, nothing)
    assert of_embeddings(east, slanted) == pytest.approx(math.sqrt(0.5))
