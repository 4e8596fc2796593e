"""An analysis for people: a table for the terminal, and one HTML file with plots that needs nothing beside it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from edged_calibration.analyze import Analysis, LayerFacts
from edged_calibration.evaluate.layer_error import LayerError
from edged_calibration.graph.index import WEIGHTED

_MARKS = {"present": "2:4", "possible": "could", "forbidden": "-"}
_COLOURS = {"fp16": "#8e9aaf", "int8": "#2a6f97", "sparse": "#2a9d8f", "bad": "#c1121f"}
_WORST = 40  # layers in the plot of errors
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}svg{max-width:100%;height:auto}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;white-space:nowrap}
th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #e3e6ea}
th{position:sticky;top:0;background:#f5f7f9;text-align:right}th:first-child,td:first-child,td.why{text-align:left}
.yes{color:#17735f;font-weight:600}.little{color:#8a6d00}.no{color:#8b949e}.bad{color:#c1121f}
"""


def table(analysis: Analysis) -> Table:
    """One row a layer, 80 columns wide."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("layer", no_wrap=True)
    for title in ("MMAC", "m x n x k", "pad"):
        shown.add_column(title, justify="right", no_wrap=True)
    for title in ("2:4", "INT8", "sparse"):
        shown.add_column(title, no_wrap=True)
    shown.add_column("range in", justify="right", no_wrap=True)
    for layer in analysis.layers:
        groups = f" x{layer.groups}" if layer.groups > 1 else ""
        seen = layer.activation
        shown.add_row(
            short(layer.node, 18),
            f"{layer.macs / 1e6:.1f}",
            f"{layer.m}x{layer.n}x{layer.k}{groups}",
            _alignment(layer),
            _MARKS[layer.sparsity],
            layer.int8_gain,
            layer.sparse_gain,
            "" if seen is None else f"{max(-seen[0], seen[1]):.3g}",
        )
    return shown


def short(node: str, most: int) -> str:
    """A node's name without what its path says twice: /deep/deep.1/body/body.0/body.0.0/Conv is deep.1/body.0.0."""
    parts = node.strip("/").split("/")
    if len(parts) > 1 and parts[-1].split("_")[0] in WEIGHTED:
        parts.pop()
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    name = "/".join(kept)
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _alignment(layer: LayerFacts) -> str:
    """The largest of the Tensor Cores' multiples that both channel counts are of."""
    if layer.depthwise:
        return "dw"
    fits = ((32, layer.aligned_int8_32), (16, layer.aligned_int8_16), (8, layer.aligned_fp16))
    return next((str(multiple) for multiple, aligned in fits if aligned), "none")


def html(analysis: Analysis, errors: Sequence[LayerError] = (), title: str = "") -> str:
    """The whole analysis as one file; with `errors`, what quantisation does to each layer as well."""
    name = escape(title or "Analysis of a model")
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{_STYLE}</style>"]
    parts += [f"<h1>{name}</h1><ul>", *(f"<li>{escape(note)}" for note in analysis.notes), "</ul>"]
    width = max(len(analysis.layers) * 0.16, 7)
    parts += ["<h2>Least time of each layer</h2>", f"<p>Bounds for {escape(analysis.device)}, not predictions.</p>"]
    parts.append(_svg(lambda axes: _times(axes, analysis.layers), width, "time"))
    parts += ["<h2>Ranges</h2>", _svg(lambda axes: _ranges(axes, analysis.layers), width, "ranges")]
    if errors:
        parts += ["<h2>What INT8 does to each layer</h2><p>The worst first: signal over noise of the layer's output,"]
        parts += [" fed by the quantised layers before it. Below 20 dB a look is worth it.</p>"]
        parts.append(_svg(lambda axes: _errors(axes, errors[:_WORST]), min(len(errors), _WORST) * 0.2 + 2, "errors"))
    parts += ["<h2>Layers</h2><div class=scroll>", _html_table(analysis.layers, errors), "</div></html>"]
    return "\n".join(parts)


def _svg(draw: Callable[[Axes], None], width: float, key: str) -> str:
    """A plot as an SVG element; its bytes depend on its data alone."""
    with matplotlib.rc_context({"svg.hashsalt": key, "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(min(width, 22), 3.4), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return (
        text[text.index("<svg") :].replace('id="', f'id="{key}-').replace('"#', f'"#{key}-').replace("(#", f"(#{key}-")
    )


def _times(axes: Axes, layers: Sequence[LayerFacts]) -> None:
    at = range(len(layers))
    for offset, (key, label) in enumerate((("fp16", "FP16"), ("int8", "INT8"), ("sparse", "sparse INT8"))):
        heights = [getattr(layer, f"{key}_us") for layer in layers]
        axes.bar([x + (offset - 1) * 0.28 for x in at], heights, 0.28, label=label, color=_COLOURS[key])
    axes.set_ylabel("microseconds")
    _name(axes, [layer.node for layer in layers])
    axes.legend(frameon=False)


def _ranges(axes: Axes, layers: Sequence[LayerFacts]) -> None:
    """Largest magnitudes, which decide how coarse INT8 is."""
    at = list(range(len(layers)))
    weights = [max(-layer.weights[0], layer.weights[1], 1e-9) for layer in layers]
    axes.plot(at, weights, "o", ms=3, color=_COLOURS["int8"], label="weights")
    known = [(x, max(-a[0], a[1], 1e-9)) for x, a in zip(at, (y.activation for y in layers), strict=True) if a]
    if known:
        axes.plot(*zip(*known, strict=True), "^", ms=3, color=_COLOURS["sparse"], label="input activations")
    axes.set_yscale("log")
    axes.set_ylabel("largest magnitude")
    _name(axes, [layer.node for layer in layers])
    axes.legend(frameon=False)


def _errors(axes: Axes, errors: Sequence[LayerError]) -> None:
    colours = [_COLOURS["bad" if error.sqnr_db < 20 else "int8"] for error in errors]
    axes.bar(range(len(errors)), [error.sqnr_db for error in errors], 0.7, color=colours)
    axes.set_ylabel("signal over noise, dB")
    _name(axes, [error.node for error in errors])


def _name(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [short(name, 28) for name in names], rotation=90, fontsize=6)
    axes.set_xlim(-0.8, len(names) - 0.2)


def _html_table(layers: Sequence[LayerFacts], errors: Sequence[LayerError]) -> str:
    noise = {error.node: error.sqnr_db for error in errors}
    titles = ["layer", "operator", "MMAC", "weights", "m", "n", "k", "groups", "channels", "kernel", "aligned to"]
    titles += ["2:4", "zeros", "weight range", "uneven", "input range", *(["dB"] if noise else [])]
    titles += ["INT8 helps", "why", "sparsity helps", "why"]
    rows = ["<table><tr>" + "".join(f"<th>{title}" for title in titles)]
    for layer in layers:
        seen = layer.activation
        cells = [layer.node, layer.op, f"{layer.macs / 1e6:.2f}", f"{layer.parameters:,}", layer.m, layer.n, layer.k]
        cells += [layer.groups, f"{layer.inputs} to {layer.outputs}", "x".join(map(str, layer.kernel)) or "-"]
        cells += [_alignment(layer), layer.sparsity, f"{layer.zeros:.0%}"]
        cells += [f"{layer.weights[0]:.3g} to {layer.weights[1]:.3g}", f"{layer.uneven:.1f}"]
        cells += ["not measured" if seen is None else f"{seen[0]:.3g} to {seen[1]:.3g}"]
        if noise:
            cells.append(f"{noise[layer.node]:.1f}" if layer.node in noise else "")
        marked = [f"<td>{escape(str(cell))}" for cell in cells]
        for gain, why in ((layer.int8_gain, layer.int8_reason), (layer.sparse_gain, layer.sparse_reason)):
            marked.append(f"<td class={gain}>{gain}<td class=why>{escape(why)}")
        rows.append("<tr>" + "".join(marked))
    return "\n".join([*rows, "</table>"])
