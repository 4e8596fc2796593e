"""The analysis tells what gains and what cannot, with reasons; the report holds it all in one file."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from rich.console import Console

from edged_calibration import zoo
from edged_calibration.analyze import Analysis, LayerFacts, analyze
from edged_calibration.evaluate.layer_error import LayerError
from edged_calibration.graph.gemm import gemms
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.profile.roofline import ORIN_NANO, microseconds
from edged_calibration.report import html, short, table
from edged_calibration.sparsity.apply import prune


@pytest.fixture(scope="module")
def mobile() -> Analysis:
    return analyze(zoo.build("mobilenet-v2", 96))


def layer(analysis: Analysis, node: str) -> LayerFacts:
    return next(layer for layer in analysis.layers if layer.node == node)


def test_depthwise_and_stem_layers_are_distinguished(mobile: Analysis) -> None:
    stem, depthwise, wide = (layer(mobile, n) for n in ("stem", "s1b0.depthwise", "last"))
    assert stem.sparsity == "forbidden" and "3 input channels" in stem.sparsity_reason
    assert depthwise.depthwise and depthwise.sparsity == "forbidden" and "depthwise" in depthwise.sparsity_reason
    assert depthwise.int8_gain == "little" and depthwise.sparse_gain == "no"
    assert wide.sparsity == "possible" and wide.aligned_int8_32 and wide.int8_gain == "yes"
    assert (wide.m, wide.n, wide.k) == (9, 1280, 320)
    assert any("17 depthwise" in note for note in mobile.notes)


def test_alignment_is_of_both_channel_counts(mobile: Analysis) -> None:
    layer24 = layer(mobile, "s1b1.expand")  # 24 to 144 channels
    assert layer24.aligned_fp16 and not layer24.aligned_int8_16 and not layer24.aligned_int8_32


def test_ranges_are_shown_where_they_were_measured(network: onnx.ModelProto) -> None:
    analysis = analyze(network, {"e": Range(0.0, 3.5)})
    assert layer(analysis, "down").activation == (0.0, 3.5)
    assert layer(analysis, "first").activation is None


def test_a_pruned_int8_graph_says_so(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    pruned = prune(network, feeds, ("down",), rows=1024)
    analysis = analyze(quantize(pruned, ranges(calibrate(pruned, feeds)), "trt"))
    assert {x.node: x.sparsity for x in analysis.layers}["down"] == "present"
    assert layer(analysis, "down").zeros >= 0.5 and layer(analysis, "first").sparsity == "possible"
    assert layer(analysis, "first").weights == (-127.0, 127.0) or max(layer(analysis, "first").weights) == 127


def test_the_bound_is_the_larger_of_arithmetic_and_memory(network: onnx.ModelProto) -> None:
    down = gemms(network)[2]
    bytes_moved = down.input_size + down.output_size + down.parameters
    assert microseconds(down, "int8") == pytest.approx(bytes_moved / ORIN_NANO.memory * 1e6)
    assert microseconds(down, "fp16") == pytest.approx(2 * microseconds(down, "int8"))


@pytest.mark.parametrize(
    ("node", "shown"),
    [
        ("/deep/deep.1/body/body.0/body.0.0/Conv", "deep.1/body.0.0"),
        ("/cls/cls.1/Conv", "cls.1"),
        ("layer1.0.conv1", "layer1.0.conv1"),
        ("Conv", "Conv"),
        ("/model/features/features.3/block/conv/Conv_1", "…es.3/block/conv"),
    ],
)
def test_a_name_is_shown_without_what_it_repeats(node: str, shown: str) -> None:
    assert short(node, 16) == shown


def test_the_table_fits_80_columns(mobile: Analysis) -> None:
    console = Console(width=80, record=True)
    console.print(table(mobile))
    lines = console.export_text().splitlines()
    assert len(lines) == 54 and max(len(line.rstrip()) for line in lines) <= 80
    assert "s6b0.depthwise" in lines[-4]  # names are whole
    assert not any("…" in line for line in lines)


def test_the_report_is_one_file_and_escapes_names(mobile: Analysis) -> None:
    errors = [LayerError(node="stem", op="Conv", tensor="t", sqnr_db=12.5)]
    text = html(mobile, errors, title="<script>x</script>")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert text.count("<svg") == 3 and text.count("</svg>") == 3
    assert not re.search(r'(src|href)="?(https?:)?//', text)
    identities = re.findall(r'\bid="([^"]+)"', text)
    assert len(identities) == len(set(identities))  # of three plots in one document
    for used in re.findall(r'(?:href="|url\()#([^")]+)', text):
        assert used in identities
    assert all(f"<td>{x.node}<" in text for x in mobile.layers) and "12.5" in text
    assert text == html(mobile, errors, title="<script>x</script>")
    assert html(mobile).count("<svg") == 2


def test_an_empty_model_has_a_report() -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "empty",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ("x",)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
    )
    analysis = analyze(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    assert analysis.layers == [] and "0 weighted layers" in analysis.notes[0]
    assert "<svg" in html(analysis)
    assert np.isfinite(len(html(analysis)))
