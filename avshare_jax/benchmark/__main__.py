"""Measures one part of the project on this machine and prints a table; with --json, also writes a file.

python -m avshare_jax.benchmark step --config=configs/pretrain.py:demo
python -m avshare_jax.benchmark parts --config=configs/pretrain.py:demo,batch_size=4
python -m avshare_jax.benchmark scaling --config=configs/pretrain.py:demo,batch_size=2 --picture=scaling.png
python -m avshare_jax.benchmark input
python -m avshare_jax.benchmark checkpoint --config=configs/pretrain.py --json=checkpoint.json
python -m avshare_jax.benchmark compile configs/pretrain.py:demo
python -m avshare_jax.benchmark peer
python -m avshare_jax.benchmark sharing
"""

import argparse
import json
import sys
from pathlib import Path

from absl import flags

from avshare_jax import settings
from avshare_jax.benchmark import checkpoint, compilation, input, parts, peer, scaling, sharing, step
from avshare_jax.benchmark.figures import describe_machine, format_table, positive
from avshare_jax.data.errors import shortage
from avshare_jax.devices import check_devices
from avshare_jax.outputs import check_file

PARTS = {
    "step": step,
    "parts": parts,
    "scaling": scaling,
    "input": input,
    "checkpoint": checkpoint,
    "compile": compilation,
    "peer": peer,
    "sharing": sharing,
}
"""Name → module with `LIBRARIES`, `add_arguments(parser)` and `measure(options)`, which gives figures by section."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m avshare_jax.benchmark", description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, module in PARTS.items():
        part = parts.add_parser(name, help=module.__doc__.split("\n")[0], description=module.__doc__.split("\n")[0])
        part.add_argument("--json", type=Path, help="file that gets the figures")
        part.add_argument("--repeats", type=positive, default=5, help="turns of each measurement, after a warm-up")
        module.add_arguments(part)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measures what the command line asks for, and prints it."""
    options = parse(arguments)
    settings.quiet_libraries()
    if not flags.FLAGS.is_parsed():  # Grain's worker processes want absl's flags parsed, of which there are none here.
        flags.FLAGS(sys.argv[:1])
    if options.json and not options.json.parent.is_dir():
        sys.exit(f"error: --json={options.json} is in a folder that does not exist: make it first.")
    module = PARTS[options.part]
    try:
        if options.json:
            check_file(options.json)
        check_devices()
        machine = describe_machine(module.LIBRARIES)
        results = module.measure(options)
        print(format_table(machine, results), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n")
    except (settings.UserError, OSError) as error:
        sys.exit(f"error: {shortage(error) or error}")
    except Exception as error:
        if not (sentence := shortage(error)):
            raise
        sys.exit(f"error: {sentence}")


if __name__ == "__main__":
    main()
