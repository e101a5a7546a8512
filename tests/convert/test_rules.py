"""The rule engine on small invented tables."""

import numpy as np
import pytest

from convert.faults import SHOWN_PER_KIND, Faults
from convert.rules import Rule, plan
from qtts_jax.errors import CheckpointError


def parts_by_source(rules, targets):
    faults = Faults()
    parts = plan(rules, targets, faults)
    faults.raise_any("model")
    return {part.source: part for part in parts}


def fault_message(rules, targets):
    faults = Faults()
    plan(rules, targets, faults)
    with pytest.raises(CheckpointError) as error:
        faults.raise_any("model")
    return str(error.value)


def filled(part, shape, values):
    """The target with `values`, in torch layout, written into the block of `part`."""
    target = np.zeros(shape, values.dtype)
    view = part.view(target)
    view[...] = values.reshape(view.shape)
    return target


def test_numbers_of_the_target_name_the_source():
    parts = parts_by_source(
        [Rule("model.{3i+1}.conv.weight", "stages/{i}/kernel")],
        {"stages/0/kernel": (2, 3), "stages/11/kernel": (2, 3)},
    )
    assert {name: part.target for name, part in parts.items()} == {
        "model.1.conv.weight": "stages/0/kernel",
        "model.34.conv.weight": "stages/11/kernel",
    }


def test_convolution_kernels_are_transposed():
    rules = [Rule("w", "kernel", "k in out -> out in k")]
    part = parts_by_source(rules, {"kernel": (7, 3, 5)})["w"]
    assert part.shape == (5, 3, 7)
    torch = np.arange(105).reshape(5, 3, 7)
    np.testing.assert_array_equal(filled(part, (7, 3, 5), torch), torch.transpose(2, 1, 0))


def test_unit_axes_appear_only_on_the_torch_side():
    part = parts_by_source([Rule("w", "kernel", "out in -> out in 1")], {"kernel": (4, 2)})["w"]
    assert part.shape == (4, 2, 1)
    torch = np.arange(8).reshape(4, 2, 1)
    np.testing.assert_array_equal(filled(part, (4, 2), torch), torch[..., 0])


def test_query_key_and_value_share_one_kernel():
    kv_heads, group, head, width = 2, 3, 4, 5
    heads = "K G h D -> (K G h) D"
    rules = [
        Rule("q", "qkv[:, :-2]", heads),
        Rule("k", "qkv[:, -2:-1]", heads),
        Rule("v", "qkv[:, -1:]", heads),
    ]
    shape = (kv_heads, group + 2, head, width)
    parts = parts_by_source(rules, {"qkv": shape})
    assert {name: part.shape for name, part in parts.items()} == {
        "q": (kv_heads * group * head, width),
        "k": (kv_heads * head, width),
        "v": (kv_heads * head, width),
    }
    q = np.arange(kv_heads * group * head * width).reshape(kv_heads * group * head, width)
    target = filled(parts["q"], shape, q)
    # Query head 4 belongs to key/value head 1 and is its second query.
    np.testing.assert_array_equal(target[1, 1], q[4 * head : 5 * head])
    assert not target[:, -2:].any()


def test_a_variable_in_brackets_stacks_along_its_axis():
    rules = [Rule("heads.{q}.weight", "heads[{q}]", "V D -> V D")]
    parts = parts_by_source(rules, {"heads": (3, 4, 2)})
    assert [part.shape for part in parts.values()] == [(4, 2)] * 3
    values = np.ones((4, 2))
    target = filled(parts["heads.2.weight"], (3, 4, 2), values)
    assert target[2].all()
    assert not target[:2].any()
    assert parts["heads.2.weight"].describe() == "heads[2]"


def test_view_reads_back_what_it_wrote():
    rules = [Rule("w", "kernel[1]", "k in out -> in (out k) 1")]
    targets = {"kernel": (2, 3, 4, 5)}
    faults = Faults()
    (part,) = plan(rules, targets, faults)
    torch = np.random.default_rng(0).standard_normal(part.shape)
    back = part.view(filled(part, (2, 3, 4, 5), torch))
    np.testing.assert_array_equal(np.ascontiguousarray(back).reshape(part.shape), torch)


def test_unfilled_parameter_is_a_fault():
    message = fault_message([Rule("a", "x")], {"x": (2,), "y/z": (3,)})
    assert "1 targets are not filled: y/z (no rule)" in message


def test_partly_filled_parameter_is_a_fault():
    message = fault_message([Rule("a", "x[0]")], {"x": (2, 3)})
    assert "x (only 3 of 6 elements)" in message


@pytest.mark.parametrize("second", ["x", "x[1]", "x[:2]"])
def test_doubly_filled_parameter_is_a_fault(second):
    message = fault_message([Rule("a", "x"), Rule("b", second)], {"x": (3, 4)})
    assert "targets are filled twice" in message
    assert "by a and b" in message


def test_overlap_is_found_even_when_the_element_count_is_right():
    message = fault_message([Rule("a", "x[:2]"), Rule("b", "x[1:]")], {"x": (3,)})
    assert "x[:2] by a and b" in message


def test_source_used_twice_is_a_fault():
    message = fault_message([Rule("a", "x"), Rule("a", "y")], {"x": (1,), "y": (1,)})
    assert "1 source keys are used more than once: a (2 times)" in message


@pytest.mark.parametrize(
    "rule", [Rule("a", "x", "k in out -> out in k"), Rule("a", "x[{q}, :, :]")]
)
def test_rule_for_another_rank_does_not_fill(rule):
    message = fault_message([rule], {"x": (3, 4)})
    assert "targets are not filled: x" in message


def test_all_faults_are_in_one_bounded_message():
    names = {f"p{i:03}": (1,) for i in range(SHOWN_PER_KIND + 5)}
    message = fault_message([Rule("a", "x"), Rule("b", "x")], {"x": (1,), **names})
    assert "filled twice" in message
    assert f"{len(names)} targets are not filled" in message
    assert message.count("p0") == SHOWN_PER_KIND
    assert "and 5 more" in message
