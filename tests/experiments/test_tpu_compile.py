"""Programs compiled for TPUs: what is read off their text, and the table made from it."""

import dataclasses
import json
import subprocess
import sys

import pytest

from experiments.bench import tpu_compile
from experiments.bench.tpu_hlo import program_cost
from experiments.bench.tpu_programs import Case
from tests.support.helpers import ROOT

# A frame loop (`done` is among its conditions) around a scan of 15 products and all-reduces.
HLO = """HloModule jit_run

%scan_condition (p: (s32[], bf16[4,8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(15)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%fused (a: bf16[4,8], b: bf16[8,8]) -> bf16[4,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[8,8]{1,0} parameter(1)
  ROOT %product = bf16[4,8]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
}

%scan_body (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %x = bf16[4,8]{1,0} get-tuple-element(%p), index=1
  %y = bf16[4,8]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused, \
    backend_config={"window_config":{"estimated_cycles":"100"}}
  %sum = bf16[4,8]{1,0} all-reduce(%y), replica_groups={}, to_apply=%add
  %kernel = bf16[4,8]{1,0} custom-call(%y), custom_call_target="tpu_custom_call", \
    backend_config={"custom_call_config":{"cost_estimate":{"flops":"0","bytes_accessed":"96"}}}
  ROOT %t = (s32[], bf16[4,8]) tuple(%i, %sum)
}

%frame_condition (p: (s32[], bf16[4,8], pred[4])) -> pred[] {
  %frames = s32[]{:T(128)} constant(64)
  %less.1 = pred[] compare(%i, %frames), direction=LT
  ROOT %and = pred[] and(%less.1, %unfinished)
}

%frame_body (p: (s32[], bf16[4,8], pred[4])) -> (s32[], bf16[4,8], pred[4]) {
  %scan = (s32[], bf16[4,8]) while(%tuple), condition=%scan_condition, body=%scan_body
  %write = (s32[], bf16[4,8]) while(%tuple.1), condition=%scan_condition, body=%scan_body, \
    metadata={op_name="jit(run)/while/body/scatter"}
  ROOT %t.1 = (s32[], bf16[4,8], pred[4]) tuple(%i, %x, %done)
}

ENTRY %main (x: bf16[4,8]) -> bf16[4,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  %first = bf16[4,8]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused, \
    backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %loop = (s32[], bf16[4,8], pred[4]) while(%tuple.2), \
    condition=%frame_condition, body=%frame_body
}
"""
PRODUCT = 2 * 4 * 8 * 8


def test_loops_are_counted_by_their_turns_and_the_frame_loop_once():
    outside, inside = program_cost(HLO)
    assert (outside.flops, outside.cycles, outside.collectives) == (PRODUCT, 7, {})
    assert inside.flops == 2 * 15 * PRODUCT and inside.cycles == 2 * 15 * 100
    assert inside.collectives == {("all-reduce", 4 * 8 * 2): 30}
    assert inside.scatter_turns == 15 and outside.scatter_turns == 0
    assert inside.kernels == {96: 30} and outside.kernels == {}


@pytest.mark.parametrize(
    ("window", "outputs", "pairs"),
    [
        ("size=3", 4, 3 * 4),
        ("size=3 pad=1_1", 6, 3 * 6 - 2),
        # Every output meets one input only: an outer product.
        ("size=3 pad=2_2 rhs_reversal=1", 8, 3 * 6),
        ("size=3 stride=2", 2, 3 * 2),
        ("size=3 pad=2_2 lhs_dilate=2", 13, 3 * 6),
    ],
)
def test_convolutions_are_counted_without_their_padding(window, outputs, pairs):
    line = (
        f"  ROOT %y = f32[2,5,{outputs}]{{2,1,0}} convolution(%x, %w), window={{{window}}}, "
        "dim_labels=bf0_oi0->bf0\n"
    )
    text = (
        "ENTRY %main (x: f32[2,4,6], w: f32[5,4,3]) -> f32[2,5,4] {\n"
        "  %x = f32[2,4,6]{2,1,0} parameter(0)\n"
        "  %w = f32[5,4,3]{2,1,0} parameter(1)\n" + line + "}\n"
    )
    assert program_cost(text)[0].flops == 2 * 2 * 5 * 4 * pairs


def row(case, **result):
    versions = {"jax": "1", "libtpu": "2", "package": "3"}
    return {"case": dataclasses.asdict(case), "versions": versions, **result}


def test_table_names_estimates_and_keeps_refusals():
    made = row(
        Case("frames", batch=8),
        memory={"total": 2**30},
        fits=True,
        frames=1,
        flops=2e9,
        estimated_cycles=15_000_000,
        scatter_turns=0,
        collectives=[{"kind": "all-reduce", "bytes": 2048, "count": 3}],
        kernels=[{"bytes": 1024, "count": 28}],
        floor_bytes=819e6,
        floor_flops=1.0,
        xla_bytes_accessed=5e6,
    )
    refused = row(Case("train"), error="out of memory", fits=False, needs_gib=20.5)
    text = tpu_compile.render([refused, made])
    assert "| v5e, 1x1 | 0.6B | 8 | all | 1.00 | 2 | 5 | 10 | 1 | 64 | 0 |" in text
    assert "| 3 all-reduce x 2 KiB | 28 x 1 KiB |" in text and "compiler's estimate" in text
    assert "does not compile: needs 20.5 GiB" in text
    assert text.index("## frames") < text.index("## train")


@pytest.mark.slow
def test_a_program_compiles_for_a_tpu_and_is_not_compiled_twice(tmp_path):
    pytest.importorskip("libtpu")
    out = tmp_path / "tpu.json"
    command = [sys.executable, "-m", "experiments.bench.tpu_compile", "--programs", "decode"]
    for _ in range(2):
        done = subprocess.run(
            [*command, "--frames", "1", "--out", out], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    (found,) = json.loads(out.read_text())["rows"]
    assert "already" in done.stdout and found["fits"] and found["estimated_cycles"] > 0
    assert "| v5e, 1x1 | codec, 1 frames |" in out.with_suffix(".md").read_text()
