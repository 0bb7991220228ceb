"""The list of collectives, read from a compiled program's text. What real steps exchange: see test_devices.py."""

from avshare_jax.training.collectives import Collective, describe, list_collectives

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a2a = (bf16[1,4]{1,0}, bf16[1,4]{1,0}) all-to-all(%one, %two), metadata={op_name="jit(step)/while/body/sort"}
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %loop = (s32[], f32[8]) while(%t), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  %grads = (f32[64,2]{1,0}, f32[]) all-reduce(%g, %l), to_apply=%add, metadata={op_name="jit(step)/cnn/conv"}
}

ENTRY %main (batch: u8[4]) -> f32[] {
  %steps = (s32[], f32[8]) while(%t), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  %start = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%w), dimensions={0}, metadata={op_name="jit(step)/gather"}
  %done = f32[16,8]{1,0} all-gather-done(%start)
  %use = f32[16,8]{1,0} add(%done, %all-gather.1)
}
"""


def test_collectives_with_what_loops_repeat():
    assert list_collectives(PROGRAM) == [
        Collective("all-to-all", ("bf16[1,4]", "bf16[1,4]"), 4, 16, 15, "jit(step)/while/body/sort"),
        Collective("all-reduce", ("f32[64,2]", "f32[]"), 128, 516, 5, "jit(step)/cnn/conv"),
        Collective("all-gather", ("f32[16,8]",), 128, 512, 1, "jit(step)/gather"),
    ]


def test_the_table_joins_what_is_alike_and_adds_up():
    lines = describe([*list_collectives(PROGRAM), *list_collectives(PROGRAM)]).splitlines()
    assert [line.split()[0] for line in lines] == ["times", "10", "2", "30", "42"]
    assert lines[-1].split()[1:] == [f"{10 * 516 + 2 * 512 + 30 * 16:,}", "in", "all"]
