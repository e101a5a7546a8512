"""A server of a model of released size with random weights, for measurements of its speed.

    python -m experiments.bench.serve_random --size 1.7B --rows 256 --chunk-frames 16

The model is made on the device, in bfloat16 and on a CPU in float32, and served as by `qtts serve`,
whose options for the server it takes. Its speech is noise and never ends by itself: every request
must give `max_new_tokens`, as those of `experiments.bench.serve --size` do, or lasts for
`--max-seconds`. `--size tiny` starts on a CPU within a minute or two."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp

from experiments import command
from experiments.bench.random_models import SIZES, build
from qtts_jax import compilation_cache
from qtts_jax.cli import serve
from qtts_jax.serving import row_group
from qtts_jax.serving.sampling_plans import QUICK


def main() -> None:
    """Make the model and serve it until SIGINT or SIGTERM."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--size", choices=(*SIZES, "tiny"), default="0.6B", help="of the model")
    parser.add_argument(
        "--quick-sampler",
        action="store_true",
        help="compile the sampler of the usual settings alone, for half of the warm-up; requests "
        "with others would compile theirs",
    )
    serve.add_options(parser)
    args = parser.parse_args()
    serve.import_extras()
    compilation_cache.enable()  # as loading a checkpoint does
    if args.quick_sampler:
        row_group.PLANS = (QUICK,)
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    tts = build(args.size, dtype)
    print(f"{args.size} in {dtype.__name__} on {jax.devices()[0].device_kind}", file=sys.stderr)
    if status := serve.serve(tts, args):
        raise SystemExit(status)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
