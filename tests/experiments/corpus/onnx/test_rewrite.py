"""Graphs that are rewritten before they run: fewer nodes with the same values, no quantisation."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from experiments_data.test_onnx_torch import values, write_model  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

from experiments.corpus.onnx.torch_runner import Graph  # noqa: E402
from experiments.corpus.synthesis.kokoro import DURATIONS, HOP, OUTPUT, KokoroVoice  # noqa: E402

FLOAT = {"x": TensorProto.FLOAT}


def small(kind, *shape):
    low, high = (0, 255) if kind == np.uint8 else (-120, 120)
    return np.random.default_rng(1).integers(low, high, shape).astype(kind)


def graph_of(path, nodes, constants, inputs=FLOAT, opset=20):
    """A model of tuples (kind, operands, results, attributes), whose output is `y`."""
    made = [helper.make_node(kind, given, out, **more) for kind, given, out, more in nodes]
    return write_model(path, made, inputs, ["y"], constants, opset=opset)


def kinds(graph):
    """The operations that are run."""
    return [step.kind for step in graph.steps(["x"], ["y"])]


def both(path, x):
    """What onnxruntime and we say, and our graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    [wanted] = onnxruntime.InferenceSession(path, options).run(["y"], {"x": x})
    graph = Graph(path, "cpu")
    [found] = graph({"x": torch.from_numpy(x)}, ["y"])
    return wanted, found.numpy(), graph


def near(wanted, found, part=0.02):
    """Equal but for the rounding of activations to 8 bits."""
    assert found.shape == wanted.shape
    return np.sqrt(np.mean((wanted - found) ** 2)) < part * wanted.std()


QUANTISE = ("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], {})
FINISH = [("Cast", ["sum"], ["float"], {"to": 1}), ("Mul", ["float", "scales"], ["y"], {})]


@pytest.mark.parametrize(
    ("shape", "more"),
    [
        ((6, 4, 3), {"pads": [1, 1]}),
        ((6, 4, 5), {"pads": [6, 6], "dilations": [3]}),
        ((6, 2, 3), {"pads": [0, 0], "group": 2, "strides": [2]}),
    ],
)
def test_quantised_convolution_is_one_of_floats(tmp_path, shape, more):
    weight, bias = small(np.uint8, *shape), values(6)
    nodes = [
        QUANTISE,
        ("ConvInteger", ["q", "w", "zero", "wz"], ["product"], more),
        ("Mul", ["scale", "ws"], ["scales"], {}),
        ("Div", ["bias", "scales"], ["steps"], {}),
        ("Floor", ["steps"], ["whole"], {}),
        ("Cast", ["whole"], ["integers"], {"to": 6}),
        ("Reshape", ["integers", "shape"], ["row"], {}),
        ("Add", ["product", "row"], ["sum"], {}),
        *FINISH,
    ]
    constants = {
        "w": weight,
        "wz": np.array(99, np.uint8),
        "ws": np.array(0.01, np.float32),
        "bias": bias,
        "shape": np.array([1, -1, 1]),
    }
    x = values(1, 4, 60)
    wanted, found, graph = both(graph_of(tmp_path / "m.onnx", nodes, constants), x)
    assert kinds(graph) == ["Conv"]
    assert near(wanted, found)
    exact = torch.nn.functional.conv1d(
        torch.from_numpy(x),
        torch.from_numpy((weight.astype(np.float32) - 99) * 0.01),
        torch.from_numpy(bias),
        padding=more["pads"][0],
        dilation=more.get("dilations", 1),
        groups=more.get("group", 1),
        stride=more.get("strides", 1),
    )
    assert found == pytest.approx(exact.numpy(), abs=1e-4)


def test_quantised_projection_is_one_of_floats(tmp_path):
    nodes = [
        QUANTISE,
        ("MatMulInteger", ["q", "w", "zero", "wz"], ["sum"], {}),
        ("Mul", ["scale", "ws"], ["scales"], {}),
        *FINISH[:1],
        ("Mul", ["float", "scales"], ["scaled"], {}),
        ("Add", ["bias", "scaled"], ["y"], {}),
    ]
    weight, scale, bias = small(np.int8, 8, 5), np.abs(values(5)), values(5)
    zeros = small(np.int8, 5) // 8
    constants = {"w": weight, "wz": zeros, "ws": scale, "bias": bias}
    x = values(2, 7, 8)
    wanted, found, graph = both(graph_of(tmp_path / "m.onnx", nodes, constants), x)
    assert kinds(graph) == ["Linear"]
    assert near(wanted, found)
    exact = x @ ((weight.astype(np.float32) - zeros) * scale) + bias
    assert found == pytest.approx(exact, rel=1e-3, abs=1e-3)


def test_quantised_lstm_is_one_of_floats(tmp_path):
    size, width = 5, 4
    constants = {
        "w": small(np.int8, 2, width, 4 * size),
        "r": small(np.int8, 2, size, 4 * size),
        "b": values(2, 8 * size),
        "h": values(2, 1, size),
        "c": values(2, 1, size)[::-1].copy(),
        "ws": np.array([0.004, 0.006], np.float32),
        "wz": np.zeros(2, np.int8),
        "rs": np.array([0.005, 0.003], np.float32),
    }
    names = ["x", "w", "r", "b", "", "h", "c", "", "ws", "wz", "rs", "wz"]
    more = {"direction": "bidirectional", "hidden_size": size}
    nodes = [("DynamicQuantizeLSTM", names, ["y"], more)]
    path = graph_of(tmp_path / "m.onnx", nodes, constants)
    wanted, found, graph = both(path, values(9, 1, width))
    assert kinds(graph) == ["LSTM"]
    assert near(wanted, found)


def test_quantised_table_is_one_of_floats(tmp_path):
    nodes = [
        ("Gather", ["table", "x"], ["row"], {"axis": 0}),
        ("DequantizeLinear", ["row", "scale", "zero"], ["y"], {}),
    ]
    constants = {
        "table": small(np.int8, 9, 4),
        "scale": np.array(0.02, np.float32),
        "zero": np.array(3, np.int8),
    }
    inputs = {"x": TensorProto.INT64}
    path = graph_of(tmp_path / "m.onnx", nodes, constants, inputs)
    wanted, found, graph = both(path, np.array([[0, 8, 3]]))
    assert kinds(graph) == ["Gather"]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_activations_are_quantised_only_where_weights_are_constant(tmp_path):
    nodes = [QUANTISE, ("MatMulInteger", ["q", "q", "zero", "zero"], ["y"], {})]
    with pytest.raises(NotImplementedError, match="the quantised weight q is not a constant"):
        Graph(graph_of(tmp_path / "m.onnx", nodes, {}), "cpu")


NORMAL = [
    ("ReduceMean", ["x", "axis"], ["mean"], {}),
    ("Sub", ["x", "mean"], ["d"], {}),
    ("Mul", ["d", "d"], ["square"], {}),
    ("ReduceMean", ["square", "axis"], ["variance"], {}),
    ("Add", ["variance", "small"], ["sum"], {}),
    ("Sqrt", ["sum"], ["root"], {}),
    ("Div", ["d", "root"], ["y"], {}),
]


@pytest.mark.parametrize(("axis", "length"), [(2, 1), (1, 7)])
def test_normalisation_over_the_last_axis_is_one_operation(tmp_path, axis, length):
    constants = {"axis": np.array([axis]), "small": np.array(0.1, np.float32)}
    path = graph_of(tmp_path / "m.onnx", NORMAL, constants)
    wanted, found, graph = both(path, values(2, 3, 8))
    assert len(kinds(graph)) == length
    assert found == pytest.approx(wanted, abs=1e-5)


def test_normalisation_whose_parts_are_read_stays(tmp_path):
    constants = {"axis": np.array([2]), "small": np.array(0.1, np.float32)}
    path = graph_of(tmp_path / "m.onnx", NORMAL, constants)
    graph = Graph(path, "cpu", ["variance"])
    x = values(2, 3, 8)
    [variance] = graph({"x": torch.from_numpy(x)}, ["variance"])
    assert variance.numpy() == pytest.approx(x.var(2, keepdims=True), abs=1e-5)


def test_angle_of_two_numbers(tmp_path):
    nodes = [
        ("Split", ["x", "sizes"], ["re", "im"], {"axis": 0}),
        ("Div", ["im", "re"], ["quotient"], {}),
        ("Atan", ["quotient"], ["plain"], {}),
        ("Less", ["re", "nothing"], ["left"], {}),
        ("Greater", ["im", "nothing"], ["above"], {}),
        ("Add", ["plain", "pi"], ["up"], {}),
        ("Sub", ["plain", "pi"], ["down"], {}),
        ("Where", ["above", "up", "down"], ["moved"], {}),
        ("Where", ["left", "moved", "plain"], ["y"], {}),
    ]
    constants = {
        "sizes": np.array([1, 1]),
        "nothing": np.array(0.0, np.float32),
        "pi": np.array(np.pi, np.float32),
    }
    path = graph_of(tmp_path / "m.onnx", nodes, constants, opset=15)
    wanted, found, graph = both(path, values(2, 30))
    assert kinds(graph) == ["Split", "Angle"]
    assert found == pytest.approx(wanted, abs=1e-5)
    edge = torch.tensor([[-1.0, -1.0, 0.0], [0.0, -0.0, 0.0]])
    [found] = graph({"x": edge}, ["y"])
    assert found[0].tolist() == pytest.approx([np.pi, np.pi, 0.0])


def test_constants_are_computed_once_and_a_product_with_a_sum(tmp_path):
    nodes = [
        ("Mul", ["a", "a"], ["square"], {}),
        ("Mul", ["x", "square"], ["product"], {}),
        ("Add", ["x", "product"], ["sum"], {}),
        ("Pow", ["sum", "two"], ["y"], {}),
    ]
    constants = {"a": values(8), "two": np.array(2.0, np.float32)}
    wanted, found, graph = both(graph_of(tmp_path / "m.onnx", nodes, constants), values(3, 8))
    assert kinds(graph) == ["MultiplyAdd", "Mul"]
    assert found == pytest.approx(wanted, abs=1e-4)


def test_number_of_marks_is_not_read_from_the_device(tmp_path):
    nodes = [
        ("Shape", ["x"], ["size"], {}),
        ("Slice", ["window", "first", "size"], ["part"], {}),
        ("Greater", ["part", "nothing"], ["marks"], {}),
        ("NonZero", ["marks"], ["where"], {}),
        ("Transpose", ["where"], ["places"], {"perm": [1, 0]}),
        ("Gather", ["x", "places"], ["some"], {}),
        ("Gather", ["part", "places"], ["parts"], {}),
        ("Mul", ["some", "parts"], ["y"], {}),
    ]
    constants = {
        "window": np.array([0, 1, 2, 0, 3, 0], np.float32),
        "first": np.array([0]),
        "nothing": np.array(0.0, np.float32),
    }
    path = graph_of(tmp_path / "m.onnx", nodes, constants)
    wanted, found, _ = both(path, values(5))
    assert found == pytest.approx(wanted, abs=1e-6)
    # The device `meta` has shapes alone: to read a number from it is an error.
    [there] = Graph(path, "meta")({"x": torch.ones(5, device="meta")}, ["y"])
    assert there.shape == found.shape and there.device.type == "meta"


@pytest.fixture
def models(tmp_path):
    """A Kokoro whose tokens take as many frames as their ids say, over the speed."""
    nodes = [
        ("Cast", ["tokens"], ["ids"], {"to": 1}),
        ("Div", ["ids", "speed"], ["long"], {}),
        ("Cast", ["long"], ["frames"], {"to": 7}),
        ("Gather", ["frames", "zero"], [DURATIONS], {"axis": 0}),
        ("ReduceSum", ["style", "one"], ["level"], {"keepdims": 0}),
        ("Cast", [DURATIONS], ["numbers"], {"to": 1}),
        ("Mul", ["numbers", "level"], [OUTPUT], {}),
    ]
    inputs = {"tokens": TensorProto.INT64, "style": TensorProto.FLOAT, "speed": TensorProto.FLOAT}
    made = [helper.make_node(kind, given, out, **more) for kind, given, out, more in nodes]
    constants = {"zero": np.array(0), "one": np.array([1])}
    write_model(tmp_path / "kokoro.onnx", made, inputs, [OUTPUT], constants)
    styles = np.arange(6, dtype=np.float16)[:, None] * np.ones((6, 4), np.float16)
    np.savez(tmp_path / "voices.npz", af_sky=styles, bm_fable=2 * styles)
    return [tmp_path]


def test_kokoro_has_a_style_for_each_length_and_samples_for_each_token(models):
    jobs = [
        {"voice": "af_sky", "tokens": [2, 4, 6], "speed": 1.0},
        {"voice": "bm_fable", "tokens": [2, 4], "speed": 0.5},
        {"voice": "af_sky", "tokens": [2] * 9, "speed": 1.0},
    ]
    waves, samples = KokoroVoice(models, "cpu")(jobs)
    frames = [[0, 2, 4, 6, 0], [0, 4, 8, 0], [0, *[2] * 9, 0]]
    assert [each.tolist() for each in samples] == [[HOP * n for n in row] for row in frames]
    # A style row of four equal numbers: the length of the text less one, at most the last.
    for wave, row, level in zip(waves, frames, (8, 8, 20), strict=True):
        assert wave.dtype == np.float16 and wave.tolist() == [level * n for n in row]
