"""Reading compiled programs: a text written by hand, and real programs against XLA's analysis and arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avshare_jax.training.program import Program

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%read_a_part (p0: f32[16,512], p1: s32[]) -> f32[1,512] {
  %p0 = f32[16,512]{1,0:T(8,128)} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %part = f32[1,512]{1,0:T(8,128)} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,512}
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %one = bf16[1,4]{1,0} parameter(0)
  %a2a = (bf16[1,4]{1,0}, bf16[1,4]{1,0}) all-to-all(%one, %one), metadata={op_name="jit(step)/while/body/sort"}
}

%less_than_three (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  %g = f32[64,2]{1,0} parameter(1)
  %l = f32[] parameter(2)
  %loop = (s32[], f32[8]) while(%p), condition=%less_than_three, body=%inner
  %grads = (f32[64,2]{1,0}, f32[]) all-reduce(%g, %l), to_apply=%add, metadata={op_name="jit(step)/cnn/conv"}
}

ENTRY %main (batch: u8[4]) -> f32[] {
  %t = (s32[], f32[8]) parameter(0)
  %w = f32[2,8]{1,0} parameter(1)
  %images = u8[4,3,10,128]{3,1,2,0:T(8,128)(4,1)} parameter(2)
  %five = s32[] while(%t), condition=%less_than_three, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  %start = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%w), dimensions={0}, metadata={op_name="jit(step)/gather"}
  %done = f32[16,8]{1,0} all-gather-done(%start)
  %sums = (f32[1024]{0}, f32[512]{0}) all-reduce-start(%w, %w), to_apply=%add
  %passed = (f32[256]{0}, f32[256]{0}, u32[], u32[]) collective-permute-start(%w), source_target_pairs={{0,1}}
  %parts = f32[1,2]{1,0} reduce-scatter(%w), dimensions={1}, to_apply=%add
  %rows = u8[9,128]{1,0:T(8,128)} parameter(5)
  %fetch = (u8[9,128]{1,0:T(8,128)S(1)}, u8[9,128]{1,0:T(8,128)}, u32[]) copy-start(%rows), metadata={op_name="a copy"}
  %big = f32[16,512]{1,0:T(8,128)} parameter(3)
  %row = s32[] parameter(4)
  %part = f32[1,512]{1,0:T(8,128)} fusion(%big, %row), kind=kLoop, calls=%read_a_part, metadata={op_name="a part"}
  ROOT %use = f32[16,8]{1,0} add(%done, %done), metadata={op_name="sum"}
}
"""


@pytest.fixture(scope="module")
def program():
    return Program.parse(PROGRAM)


def test_collectives_with_what_loops_repeat(program):
    found = [(one.kind, tuple(map(str, one.shapes)), one.times, one.source) for one in program.collectives()]
    assert found == [
        ("all-to-all", ("bf16[1,4]", "bf16[1,4]"), 15, "jit(step)/while/body/sort"),
        ("all-reduce", ("f32[64,2]", "f32[]"), 5, "jit(step)/cnn/conv"),
        ("all-gather", ("f32[16,8]",), 1, "jit(step)/gather"),
        ("all-reduce", ("f32[1024]", "f32[512]"), 1, ""),
        ("collective-permute", ("f32[256]",), 1, ""),
        ("reduce-scatter", ("f32[2,8]",), 1, ""),
    ]
    assert [one.elements for one in program.collectives()] == [4, 128, 128, 1024, 256, 16]
    assert [one.bytes for one in program.collectives()] == [16, 516, 512, 6144, 1024, 64]


def test_shapes_are_padded_to_whole_tiles(program):
    images = program.computations["main"]["images"].shapes[0]
    # From the minor axis on: 128, then 3 padded to 8, then 10 and 4.
    assert images.bytes == 128 * 8 * 10 * 4
    assert images.elements == 4 * 3 * 10 * 128
    assert str(images) == "u8[4,3,10,128]"


def test_traffic_is_that_of_main_memory(program):
    moved = dict(program.traffic())
    assert moved["a copy"] == 16 * 128, "the copy onto the chip reads, and writes nothing to main memory"
    # Of a row, its tile of 8 is read and written; the scalar of 4 bytes says which.
    assert moved["a part"] == 2 * 8 * 512 * 4 + 4
    assert moved["sum"] == 3 * 16 * 8 * 4


UNFUSED = """\
HloModule parts

%put_rows (p0: f32[1000,512], p1: s32[3,1], p2: f32[3,512]) -> f32[1000,512] {
  %p0 = f32[1000,512]{1,0} parameter(0)
  %p1 = s32[3,1]{1,0} parameter(1)
  %p2 = f32[3,512]{1,0} parameter(2)
  ROOT %put = f32[1000,512]{1,0} scatter(%p0, %p1, %p2), to_apply=%second
}

%second (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %y = f32[] parameter(1)
}

%take_rows (p0: f32[1000,512], p1: s32[3,1]) -> f32[3,512] {
  %p0 = f32[1000,512]{1,0} parameter(0)
  %p1 = s32[3,1]{1,0} parameter(1)
  ROOT %rows = f32[3,512]{1,0} gather(%p0, %p1), slice_sizes={1,512}
}

ENTRY %main (big: f32[1000,512]) -> f32[1000,512] {
  %big = f32[1000,512]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %three = s32[3,1]{1,0} parameter(2)
  %chip = f32[1000,512]{1,0:S(1)} parameter(3)
  %a = f32[1,512]{1,0} slice(%big), slice={[3:4], [0:512]}, metadata={op_name="slice"}
  %b = f32[1,512]{1,0} dynamic-slice(%big, %i, %i), metadata={op_name="dynamic-slice"}
  %c = f32[3,512]{1,0} gather(%big, %three), slice_sizes={1,512}, metadata={op_name="gather"}
  %d = f32[1,512]{1,0} slice(%chip), slice={[3:4], [0:512]}, metadata={op_name="from the chip"}
  %e = f32[1000,512]{1,0} dynamic-update-slice(%big, %a, %i, %i), metadata={op_name="update"}
  %f = f32[1000,512]{1,0} scatter(%e, %three, %c), to_apply=%second, metadata={op_name="scatter"}
  %g = f32[3,512]{1,0} fusion(%f, %three), kind=kLoop, calls=%take_rows, metadata={op_name="fused gather"}
  ROOT %h = f32[1000,512]{1,0} fusion(%f, %three, %g), kind=kLoop, calls=%put_rows, metadata={op_name="fused scatter"}
}
"""


def test_operations_on_a_part_of_an_array_move_that_part():
    row, indices = 512 * 4, 3 * 4
    assert dict(Program.parse(UNFUSED).traffic()) == {
        "slice": 2 * row,  # 4,096: read and written
        "dynamic-slice": 2 * row,
        "gather": 2 * 3 * row + indices,
        "from the chip": row,
        "update": 2 * row,
        "scatter": 3 * 3 * row + indices,  # Reads the updates and what they change, and writes that.
        "fused gather": 2 * 3 * row + indices,
        "fused scatter": 3 * 3 * row + indices,
    }


def compiled_text(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    return Program.parse(compiled.as_text()), compiled.cost_analysis()


def convolution(strides, padding):
    def function(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=jnp.float32
        )

    return function


def test_operations_of_a_strided_convolution_leave_padding_out():
    program, analysis = compiled_text(convolution((2, 2), [(1, 1), (1, 1)]), (2, 9, 9, 4), (3, 3, 4, 8))
    flops = sum(flops for _, flops in program.flops())
    # Along each axis, 5 results and a window of 3: two of the 15 places are padding.
    assert flops == 2 * 2 * 8 * 4 * 13**2
    assert flops == pytest.approx(analysis["flops"], rel=0.01)


def test_operations_of_gradients_leave_the_gaps_of_the_stride_out():
    def gradient(x, kernel):
        y, pull = jax.vjp(convolution((2, 2), [(1, 1), (1, 1)]), x, kernel)
        return pull(jnp.sin(y))

    program, _ = compiled_text(gradient, (2, 9, 9, 4), (3, 3, 4, 8))
    assert sum(flops for _, flops in program.flops()) == 3 * 2 * 2 * 8 * 4 * 13**2


def test_operations_in_loops_count_as_often_as_they_run():
    def function(x, weights):
        return jax.lax.scan(lambda carry, weight: (jnp.tanh(carry @ weight), None), x, weights)[0]

    program, analysis = compiled_text(function, (64, 64), (7, 64, 64))
    flops = sum(flops for _, flops in program.flops())
    assert flops == 7 * 2 * 64**3
    assert analysis["flops"] < flops / 2, "XLA counts one turn: this module is needed"


def test_traffic_without_fusions_is_that_of_operands_and_results():
    program, analysis = compiled_text(lambda x, y: x @ y, (64, 32), (32, 16))
    moved = sum(moved for _, moved in program.traffic())
    assert moved == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert moved == pytest.approx(analysis["bytes accessed"], rel=0.01)
    assert np.isfinite(moved)
